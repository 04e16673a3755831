"""Requests on images and kernels, turned into calls of their services."""

from banger.api.images import (
    AvailableKernel,
    ImageBuild,
    ImageDelete,
    ImageList,
    Images,
    ImageShow,
    KernelDelete,
    KernelList,
    KernelPull,
    Kernels,
    KernelShow,
)
from banger.api.method import Nothing
from banger.base.problem import bad_request
from banger.base.progress import Progress
from banger.model.image import ImageManifest, ImageRecipe
from banger.model.kernel import KernelManifest
from banger.model.names import validate_name
from banger.services.images.service import ImageService
from banger.services.kernels.service import KernelService
from banger.services.vms.service import VmService


class MaterialCalls:
    def __init__(self, images: ImageService, kernels: KernelService, vms: VmService) -> None:
        self._images, self._kernels, self._vms = images, kernels, vms

    def list_images(self, request: ImageList) -> Images:
        return Images(images=list(self._images.list()))
