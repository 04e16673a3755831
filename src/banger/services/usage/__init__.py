"""What VMs use of the host, what they serve, and how they are."""
