"""Images: what VMs' disks begin as. Built once for each recipe, published whole, kept while a VM uses one."""

from banger.services.images.service import ImageService

__all__ = ["ImageService"]
