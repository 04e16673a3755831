"""VMs on the host's network: on the bridge with addresses and names, or in user mode."""
