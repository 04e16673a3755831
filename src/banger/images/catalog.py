"""What `kernel pull` and `image build` know by name, and the digests that tell whether a cached one still fits. Pure.

The revisions are part of the digest: raise one when the code makes something else of the same recipe.
"""

import hashlib

import msgspec

from banger.images.debian_trim import DEBIAN_EDIT
from banger.images.modules import BOOT_MODULES
from banger.images.rootfs_debian import BASE_PACKAGES
from banger.images.small_config import render_fragment
from banger.model.image import DEFAULT_IMAGE, ImageRecipe
from banger.model.kernel import DEFAULT_KERNEL, KernelCatalogEntry

_KERNEL_REVISION = 3
_IMAGE_REVISION = 1

KERNELS: tuple[KernelCatalogEntry, ...] = (
    KernelCatalogEntry(
        name=DEFAULT_KERNEL,
        description="the distribution's cloud kernel with all its modules",
        method="debian-package",
        package="linux-image-cloud-amd64",
    ),
    KernelCatalogEntry(
        name="small",
        description="a small kernel without modules, built from the distribution's source (takes minutes)",
        method="linux-source",
        package="linux-source-6.1",
    ),
)

IMAGES: tuple[ImageRecipe, ...] = (ImageRecipe(name=DEFAULT_IMAGE),)


def find_kernel(name: str) -> KernelCatalogEntry | None:
    return next((entry for entry in KERNELS if entry.name == name), None)


def find_image(name: str) -> ImageRecipe | None:
    return next((recipe for recipe in IMAGES if recipe.name == name), None)


def digest_kernel_recipe(entry: KernelCatalogEntry) -> str:
    """Of all that decides what `kernel pull` makes, the guest program and the package's version left out."""
    inputs: tuple[object, ...] = (_KERNEL_REVISION, entry.method, entry.package)
    return _digest((*inputs, render_fragment() if entry.method == "linux-source" else BOOT_MODULES))


def digest_image_recipe(recipe: ImageRecipe, tarball_sha256: str = "") -> str:
    """Of all that decides what `image build` makes, its name left out, packages in any order."""
    choice = () if recipe.kernel is None else (recipe.kernel,)
    if recipe.tarball is not None:
        return _digest((_IMAGE_REVISION, "tar", tarball_sha256, recipe.size_bytes, *choice))
    return _digest(
        (
            _IMAGE_REVISION,
            recipe.preset,
            recipe.suite,
            sorted({*recipe.packages, *BASE_PACKAGES}),
            recipe.size_bytes,
            repr(DEBIAN_EDIT),
            *choice,
        )
    )


def _digest(inputs: object) -> str:
    return hashlib.sha256(msgspec.json.encode(inputs, order="deterministic")).hexdigest()
