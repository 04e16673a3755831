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
from banger.base.problem import bad_request
from banger.base.progress import Progress, Silent
from banger.model.image import ImageManifest, ImageRecipe
from banger.model.kernel import KernelManifest
from banger.services.images.service import ImageService
from banger.services.kernels.service import KernelService


class MaterialCalls:
    def __init__(self, images: ImageService, kernels: KernelService, *, default_image: str) -> None:
        self._images, self._kernels = images, kernels
        self._default_image = default_image

    async def list_images(self, request: ImageList) -> Images:
        return Images(images=await self._images.list_images())

    async def show_image(self, request: ImageShow) -> ImageManifest:
        return await self._images.show(request.image)

    async def build_image(self, request: ImageBuild, progress: Progress) -> ImageManifest:
        recipe = compose_recipe(request, self._default_image)
        if recipe.kernel is not None:
            await self._kernels.verify_known(recipe.kernel)
        return (await self._images.build(recipe, progress, force=request.force)).manifest

    def subject_of_build(self, request: ImageBuild) -> str:
        """Raises `bad_request` for parameters that contradict one another: nothing has started then."""
        return compose_recipe(request, self._default_image).name

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


def compose_recipe(request: ImageBuild, default_image: str) -> ImageRecipe:
    """Pure. Refuses what would silently be ignored, and an archive's userland under the default image's name."""
    if request.from_tar is not None and request.packages:
        raise bad_request(
            "packages cannot be added to an image from a tar archive",
            hint="leave out --package, or install them into the archive's tree",
        )
    if request.from_tar is not None and request.image is None:
        raise bad_request(
            "an image from a tar archive needs a name of its own",
            hint=f"name the image: banger image build NAME --from-tar {request.from_tar}",
        )
    recipe = ImageRecipe(
        name=default_image if request.image is None else request.image,
        packages=tuple(request.packages),
        tarball=request.from_tar,
        kernel=request.kernel,
    )
    if request.size_bytes is None:
        return recipe
    return msgspec.structs.replace(recipe, size_bytes=request.size_bytes)


def _render(name: str, description: str, pulled: KernelManifest | None) -> AvailableKernel:
    return AvailableKernel(
        name=name,
        description=description,
        pulled=pulled is not None,
        release=pulled.release if pulled else None,
        size_bytes=pulled.size_bytes if pulled else None,
    )
