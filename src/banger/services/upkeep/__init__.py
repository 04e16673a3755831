"""Ends what nobody needs any more: VMs whose time is over, and VMs that nobody uses."""
