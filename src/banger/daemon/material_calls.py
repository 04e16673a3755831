"""Requests on images and kernels, turned into calls of their services."""

import msgspec

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
from banger.base.progress import Progress, Silent
from banger.model.image import ImageManifest, ImageRecipe
from banger.model.kernel import KernelManifest
from banger.services.images.service import ImageService
from banger.services.kernels.service import KernelService


class MaterialCalls:
    def __init__(self, images: ImageService, kernels: KernelService) -> None:
        self._images, self._kernels = images, kernels

    async def list_images(self, request: ImageList) -> Images:
        return Images(images=await self._images.list_images())

    async def show_image(self, request: ImageShow) -> ImageManifest:
        return await self._images.show(request.image)

    async def build_image(self, request: ImageBuild, progress: Progress) -> ImageManifest:
        recipe = ImageRecipe(name=request.image, packages=tuple(request.packages), tarball=request.from_tar)
        if request.size_bytes is not None:
            recipe = msgspec.structs.replace(recipe, size_bytes=request.size_bytes)
        return (await self._images.build(recipe, progress, force=request.force)).manifest

    async def delete_image(self, request: ImageDelete) -> Nothing:
        await self._images.delete(request.image, Silent())
        return Nothing()

    async def list_kernels(self, request: KernelList) -> Kernels:
        pulled = {kernel.name: kernel for kernel in await self._kernels.list_kernels()}
        catalog = {entry.name: entry.description for entry in self._kernels.available()}
        names = sorted({*pulled, *(catalog if request.available else ())})
        return Kernels(kernels=[_render(name, catalog.get(name, ""), pulled.get(name)) for name in names])

    async def show_kernel(self, request: KernelShow) -> KernelManifest:
        return await self._kernels.show(request.kernel)

    async def pull_kernel(self, request: KernelPull, progress: Progress) -> KernelManifest:
        return (await self._kernels.pull(request.kernel, progress, force=request.force)).manifest

    async def delete_kernel(self, request: KernelDelete) -> Nothing:
        await self._kernels.delete(request.kernel, Silent())
        return Nothing()


def _render(name: str, description: str, pulled: KernelManifest | None) -> AvailableKernel:
    return AvailableKernel(
        name=name,
        description=description,
        pulled=pulled is not None,
        release=pulled.release if pulled else None,
        size_bytes=pulled.size_bytes if pulled else None,
    )
