"""Root disks of VMs: how each stands on the image that all of its kind share. Reached by `contract` and `choose`."""
