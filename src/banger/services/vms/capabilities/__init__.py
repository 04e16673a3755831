"""What a VM can have, one module each, on one contract of hooks."""
