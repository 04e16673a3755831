"""Images: a root file system that many VMs share read-only, and the seed of their work disks."""

import msgspec

from banger.base.problem import bad_request

DEFAULT_IMAGE = "debian-bookworm"
SMALLEST_IMAGE_BYTES = 64 * 1024**2
LARGEST_IMAGE_BYTES = 1024**4


class ImageManifest(msgspec.Struct, frozen=True, kw_only=True):
    """`manifest.json` of a managed image; written last, so that an image without one does not exist.

    `id` names this one build: an image built again under its name has another. File names are relative to
    the image's directory; sizes in bytes. `virtual_size_bytes` is what the guest sees, `size_bytes` what the
    files take on the host's disk. `files` are the nominal sizes of all files, to notice a damaged one.
    `kernel` is what VMs of this image boot unless told otherwise. `rootfs_sha256` is over what is not zero
    (images/ext4.py, `digest_disk`); nothing verifies it yet, it is for people and for a later `verify`.
    """

    name: str
    id: str
    source: str
    recipe_digest: str
    created_at: str
    rootfs: str = "rootfs.ext4"
    rootfs_sha256: str = ""
    work_seed: str | None = None
    kernel: str | None = None
    os_release: dict[str, str] = {}
    virtual_size_bytes: int
    size_bytes: int
    files: dict[str, int] = {}


class ImageRecipe(msgspec.Struct, frozen=True, kw_only=True):
    """What `image build` is asked for. Its digest names the result in the cache.

    `tarball` is the absolute path of an archive with any userland; preset, suite and packages then say nothing.
    `kernel` names the one that VMs of this image boot unless told otherwise; whether there is such a one is the
    caller's to check.
    """

    name: str
    preset: str = "debian"
    suite: str = "bookworm"
    packages: tuple[str, ...] = ()
    size_bytes: int = 8 * 1024**3
    tarball: str | None = None
    kernel: str | None = None


def validate_recipe(recipe: ImageRecipe) -> None:
    """Refuses a size, a package or a path that no build could honour. The name is checked where it is used."""
    if not SMALLEST_IMAGE_BYTES <= recipe.size_bytes <= LARGEST_IMAGE_BYTES:
        raise bad_request(
            f"an image cannot have {recipe.size_bytes} bytes", hint="give a size from 64M to 1T, such as 8G"
        )
    if recipe.tarball is not None:
        if not recipe.tarball.startswith("/"):
            raise bad_request(f"the archive's path {recipe.tarball!r} is not absolute")
        return
    if recipe.preset != "debian":
        raise bad_request(
            f"there is no preset {recipe.preset!r}", hint="use the preset debian, or --from-tar"
        )
    if not _is_package_like(recipe.suite):
        raise bad_request(f"{recipe.suite!r} is not the name of a Debian release", hint="use bookworm")
    for package in recipe.packages:
        if not _is_package_like(package):
            raise bad_request(f"{package!r} is not the name of a Debian package")


def _is_package_like(name: str) -> bool:
    """Debian Policy 5.6.1, plus `:arch`; never an option, a list or a path to a tool."""
    return name[:1].isalnum() and all(c.isascii() and (c.isalnum() or c in "+-.:") for c in name)
