"""Repositories of the host on their way into VMs, and work on its way back."""
