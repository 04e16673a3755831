"""Any userland that comes as a tar archive, as an image: our init and agent boot it as it is."""

from pathlib import Path

from banger.base.progress import Progress
from banger.images.archive import MOUNT_POINTS, TreeEdit
from banger.images.ownership import Ownership
from banger.images.rootfs import BuiltImage, build_disks
from banger.model.image import ImageRecipe

SPACE_FACTOR = 4  # of the archive's own size: unpacked tree and file system

_EDIT = TreeEdit(directories=MOUNT_POINTS)


async def build_from_tar(
    recipe: ImageRecipe, directory: Path, progress: Progress, ownership: Ownership
) -> BuiltImage:
    """rootfs.ext4 and work-seed.ext4 in `directory`, of `recipe.tarball`."""
    assert recipe.tarball is not None
    archive = Path(recipe.tarball)
    copied = await build_disks(archive, _EDIT, directory, recipe.size_bytes, progress, ownership)
    return BuiltImage(f"tar {archive.name}", copied.os_release)
