"""Access to VMs as a whole: what an SSH client is told once."""
