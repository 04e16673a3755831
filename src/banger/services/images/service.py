"""The use cases of images.

Owns the directory of images through a shelf, whose lock for each name is the only one: builds of different
images, and everything else, go on beside one another.
"""

import asyncio
import hashlib
import secrets
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from banger.base.clock import utc_now
from banger.base.problem import Problem, bad_request, not_found
from banger.base.progress import Progress, stage
from banger.images import catalog, rootfs_debian, rootfs_tar
from banger.images.ext4 import digest_disk, is_ext4
from banger.images.ownership import Ownership
from banger.images.rootfs import ROOTFS, WORK_SEED, BuiltImage
from banger.images.shared_work import SharedWork
from banger.images.shelf import Shelf, Stored, Wording, list_files
from banger.model.image import DEFAULT_IMAGE, ImageManifest, ImageRecipe, validate_recipe
from banger.model.names import validate_material_name

StoredImage = Stored[ImageManifest]
Builder = Callable[[ImageRecipe, Path, Progress], Coroutine[Any, Any, BuiltImage]]

_WORDING = Wording("image", "banger image list", "banger image build", "banger image build --force")


class ImageService:
    """Managed images below one directory."""

    def __init__(
        self,
        directory: Path,
        *,
        users_of: Callable[[str], Sequence[str]] = lambda _: (),
        builders: Mapping[str, Builder] | None = None,
        ownership: Ownership | None = None,
    ) -> None:
        """`users_of` names the VMs whose disks stand on a build, by the name of its directory (NAME@ID)."""
        ownership = ownership or Ownership()
        self._builders = builders or make_builders(ownership)
        self._shelf = Shelf(
            directory,
            ImageManifest,
            _WORDING,
            users_of,
            is_known=lambda name: catalog.find_image(name) is not None,
            find_damage=_find_damage,
            ownership=ownership,
        )
        self._work: SharedWork[StoredImage] = SharedWork()

    async def list_images(self) -> list[ImageManifest]:
        """All published images by name; damaged ones are left out (`get` says what is wrong with one)."""
        stored, _ = await asyncio.to_thread(self._shelf.read_all)
        return [image.manifest for image in stored]

    async def list_damaged(self) -> list[Problem]:
        """What is wrong with those that `list_images` leaves out, each with the command that makes it anew."""
        _, problems = await asyncio.to_thread(self._shelf.read_all)
        return problems

    async def show(self, name: str) -> ImageManifest:
        return (await self.get(name)).manifest

    async def get(self, name: str = DEFAULT_IMAGE) -> StoredImage:
        """A published image, checked cheaply. Raises `not_found`, or `unavailable` when it is damaged.

        The directory is of this very build and stays while `users_of` names a user, so record it (or the id)
        with the VM rather than ask for the name again.
        """
        return await asyncio.to_thread(self._shelf.get, name)

    async def ensure(self, progress: Progress, name: str = DEFAULT_IMAGE) -> StoredImage:
        """What is published under the name, whatever its recipe; built when the catalog knows how."""
        stored = await asyncio.to_thread(self._shelf.find, name)
        if stored is not None:
            return stored
        recipe = catalog.find_image(name)
        if recipe is None:
            return await self.get(name)  # raises, with the hint that fits
        return await self.build(recipe, progress)

    async def build(self, recipe: ImageRecipe, progress: Progress, *, force: bool = False) -> StoredImage:
        """Builds an image, unless the same recipe's is there under the name. `force` builds it anew."""
        validate_material_name("image", recipe.name)
        validate_recipe(recipe)
        digest = await asyncio.to_thread(_digest_recipe, recipe)
        return await self._work.run(
            (recipe.name, digest, force),
            progress,
            lambda told: self._build(recipe, digest, told, force=force),
        )

    async def delete(self, name: str, progress: Progress) -> None:
        """Removes an image that no VM uses. Raises `conflict` naming those that do."""
        await self._shelf.delete(name, progress)

    async def sweep(self) -> None:
        """Removes what interrupted builds have left behind, and builds whose last VM is gone."""
        await self._shelf.sweep()

    async def _build(
        self, recipe: ImageRecipe, digest: str, progress: Progress, *, force: bool
    ) -> StoredImage:
        async with self._shelf.hold(recipe.name, progress):
            stored = None if force else await asyncio.to_thread(self._shelf.find, recipe.name)
            if stored is not None and stored.manifest.recipe_digest == digest:
                return stored
            await self._shelf.sweep_name(recipe.name)
            self._shelf.check_space(recipe.name, _estimate_space(recipe))
            builder = self._builders["tar" if recipe.tarball is not None else recipe.preset]

            async def build(place: Path) -> ImageManifest:
                built = await builder(recipe, place, progress)
                with stage(progress, "publish image"):
                    return await asyncio.to_thread(_describe, recipe, digest, built, place)

            return await self._shelf.publish(recipe.name, build)


def make_builders(ownership: Ownership) -> Mapping[str, Builder]:
    return {
        "debian": partial(rootfs_debian.build_debian, ownership=ownership),
        "tar": partial(rootfs_tar.build_from_tar, ownership=ownership),
    }


def _find_damage(stored: StoredImage) -> str | None:
    manifest, directory = stored
    for file in (manifest.rootfs, manifest.work_seed):
        if file is not None and not is_ext4(directory / file):
            return f"{file} is no ext4 file system"
    return None


def _digest_recipe(recipe: ImageRecipe) -> str:
    """Reads the archive, when there is one: its content is part of the recipe."""
    if recipe.tarball is None:
        return catalog.digest_image_recipe(recipe)
    try:
        with Path(recipe.tarball).open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise not_found(
            f"there is no file {recipe.tarball}", hint=f"ls {Path(recipe.tarball).parent}"
        ) from error
    except OSError as error:
        raise bad_request(f"{recipe.tarball} cannot be read: {error.strerror}") from error
    return catalog.digest_image_recipe(recipe, content)


def _estimate_space(recipe: ImageRecipe) -> int:
    if recipe.tarball is None:
        return rootfs_debian.SPACE_BYTES
    return Path(recipe.tarball).stat().st_size * rootfs_tar.SPACE_FACTOR


def _describe(recipe: ImageRecipe, digest: str, built: BuiltImage, place: Path) -> ImageManifest:
    files, size_bytes = list_files(place)
    return ImageManifest(
        name=recipe.name,
        id=secrets.token_hex(6),
        source=built.source,
        recipe_digest=digest,
        created_at=utc_now(),
        rootfs=ROOTFS,
        rootfs_sha256=digest_disk(place / ROOTFS),
        work_seed=WORK_SEED if WORK_SEED in files else None,
        kernel=recipe.kernel,
        os_release=built.os_release,
        virtual_size_bytes=files[ROOTFS],
        size_bytes=size_bytes,
        files=files,
    )
