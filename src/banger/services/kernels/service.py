"""The use cases of kernels.

Owns the directory of kernels through a shelf, whose lock for each name is the only one. A kernel is made of
two halves: what a recipe makes (vmlinux, modules), and the base initramfs, which carries the guest program and
is written anew whenever that changes.
"""

import asyncio
import hashlib
import platform
import secrets
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from banger.base.clock import utc_now
from banger.base.files import write_atomic
from banger.base.problem import Problem, not_found, unavailable
from banger.base.progress import Progress, stage
from banger.images import catalog, kernel_package, kernel_source
from banger.images.ext4 import is_ext4
from banger.images.initramfs import render_init_archive
from banger.images.kernel_package import MODULES_ARCHIVE, VMLINUX, BuiltKernel
from banger.images.shared_work import SharedWork
from banger.images.shelf import Shelf, Stored, Wording, list_files, translated_full_disk
from banger.model.kernel import DEFAULT_KERNEL, KernelCatalogEntry, KernelManifest

StoredKernel = Stored[KernelManifest]
Builder = Callable[[str, Path, Progress], Coroutine[Any, Any, BuiltKernel]]

BUILDERS: Mapping[str, Builder] = {
    "debian-package": kernel_package.build_from_package,
    "linux-source": kernel_source.build_from_source,
}
_SPACE_BYTES = {"debian-package": kernel_package.SPACE_BYTES, "linux-source": kernel_source.SPACE_BYTES}
_WORDING = Wording("kernel", "banger kernel list", "banger kernel pull", "banger kernel pull --force")
_ELF = b"\x7fELF"
_CPIO = b"070701"


class KernelService:
    """Managed kernels below one directory."""

    def __init__(
        self,
        directory: Path,
        guest_program: Path,
        *,
        users_of: Callable[[str], Sequence[str]] = lambda _: (),
        builders: Mapping[str, Builder] = BUILDERS,
    ) -> None:
        """`users_of` names the VMs that use a build, by the name of its directory (NAME@ID);
        `guest_program` is the static executable for /init."""
        self._guest_program = guest_program
        self._builders = builders
        self._shelf = Shelf(
            directory,
            KernelManifest,
            _WORDING,
            users_of,
            is_known=lambda name: catalog.find_kernel(name) is not None,
            find_damage=_find_damage,
        )
        self._work: SharedWork[StoredKernel] = SharedWork()

    def available(self) -> tuple[KernelCatalogEntry, ...]:
        """What `pull` can obtain."""
        return catalog.KERNELS

    async def list_kernels(self) -> list[KernelManifest]:
        """All published kernels by name; damaged ones are left out (`get` says what is wrong with one)."""
        stored, _ = await asyncio.to_thread(self._shelf.read_all)
        return [kernel.manifest for kernel in stored]

    async def list_damaged(self) -> list[Problem]:
        """What is wrong with those that `list_kernels` leaves out, each with the command that makes it anew."""
        _, problems = await asyncio.to_thread(self._shelf.read_all)
        return problems

    async def show(self, name: str) -> KernelManifest:
        return (await self.get(name)).manifest

    async def get(self, name: str = DEFAULT_KERNEL) -> StoredKernel:
        """A published kernel, checked cheaply. Raises `not_found`, or `unavailable` when it is damaged.

        Its initramfs may carry an earlier guest program; `ensure` sees to that.
        """
        return await asyncio.to_thread(self._shelf.get, name)

    async def ensure(self, progress: Progress, name: str = DEFAULT_KERNEL) -> StoredKernel:
        """A kernel ready to boot with today's guest program: what is there, pulled when it is not."""
        stored = await asyncio.to_thread(self._shelf.find, name)
        if stored is not None and stored.manifest.guest_program_sha256 == await self._digest_guest_program():
            return stored
        return await self._share(name, stored.manifest.recipe_digest if stored else "", progress, force=False)

    async def pull(self, name: str, progress: Progress, *, force: bool = False) -> StoredKernel:
        """Obtains a kernel of the catalog, unless the same recipe's is there. `force` obtains it anew."""
        if catalog.find_kernel(name) is None:
            raise not_found(f"the catalog has no kernel {name!r}", hint="banger kernel list --available")
        return await self._share(name, "", progress, force=force)

    async def verify_known(self, name: str) -> None:
        """Raises `not_found` for a kernel that is neither here nor in the catalog."""
        if catalog.find_kernel(name) is None and await asyncio.to_thread(self._shelf.find, name) is None:
            raise not_found(f"there is no kernel {name!r}", hint="banger kernel list --available")

    async def delete(self, name: str, progress: Progress) -> None:
        """Removes a kernel that no VM uses. Raises `conflict` naming those that do."""
        await self._shelf.delete(name, progress)

    async def sweep(self) -> None:
        """Removes what interrupted pulls have left behind."""
        await self._shelf.sweep()

    async def _share(self, name: str, digest: str, progress: Progress, *, force: bool) -> StoredKernel:
        """One run for all who want the same; `digest` is the recipe's unless the catalog knows a newer one."""
        entry = catalog.find_kernel(name)
        wanted = digest or (catalog.digest_kernel_recipe(entry) if entry else "")
        return await self._work.run(
            (name, wanted, force), progress, lambda told: self._make(name, entry, wanted, told, force=force)
        )

    async def _make(
        self, name: str, entry: KernelCatalogEntry | None, digest: str, progress: Progress, *, force: bool
    ) -> StoredKernel:
        program = await asyncio.to_thread(self._read_guest_program)
        async with self._shelf.hold(name, progress):
            stored = None if force else await asyncio.to_thread(self._shelf.find, name)
            if stored is not None and stored.manifest.recipe_digest == digest:
                return await self._refresh(stored, program, progress)
            if entry is None:
                raise not_found(f"there is no kernel {name!r}", hint="banger kernel list --available")
            await self._shelf.sweep_name(name)
            self._shelf.check_space(name, _SPACE_BYTES[entry.method])

            async def build(place: Path) -> KernelManifest:
                built = await self._builders[entry.method](entry.package, place, progress)
                with stage(progress, "publish kernel"):
                    return await asyncio.to_thread(_describe, entry, digest, built, place, program)

            return await self._shelf.publish(name, build)

    async def _refresh(self, stored: StoredKernel, program: bytes, progress: Progress) -> StoredKernel:
        """A base initramfs with this guest program, beside the one that a starting VM may be about to read."""
        if stored.manifest.guest_program_sha256 == hashlib.sha256(program).hexdigest():
            return stored
        with stage(progress, "write base initramfs"):
            return await asyncio.to_thread(self._refresh_files, stored, program)

    def _refresh_files(self, stored: StoredKernel, program: bytes) -> StoredKernel:
        manifest, directory = stored
        with translated_full_disk(directory):
            fields = write_base_initramfs(directory, program)
            for old in directory.glob("base-*.cpio"):
                if old.name not in (manifest.base_initramfs, fields["base_initramfs"]):
                    old.unlink()
            fields["files"], fields["size_bytes"] = list_files(directory)
            return self._shelf.rewrite_manifest(stored, msgspec.structs.replace(manifest, **fields))

    async def _digest_guest_program(self) -> str:
        return hashlib.sha256(await asyncio.to_thread(self._read_guest_program)).hexdigest()

    def _read_guest_program(self) -> bytes:
        try:
            return self._guest_program.read_bytes()
        except OSError as error:
            raise unavailable(
                f"the guest program {self._guest_program} cannot be read: {error.strerror}",
                hint="reinstall banger, or make guest-program in a clone",
            ) from error


def _find_damage(stored: StoredKernel) -> str | None:
    manifest, directory = stored
    for file, magic in ((manifest.vmlinux, _ELF), (manifest.base_initramfs, _CPIO)):
        with (directory / file).open("rb") as content:
            if content.read(len(magic)) != magic:
                return f"{file} begins with the wrong bytes"
    if manifest.modules_image is not None and not is_ext4(directory / manifest.modules_image):
        return f"{manifest.modules_image} is no ext4 file system"
    return None


def write_base_initramfs(directory: Path, program: bytes) -> dict[str, Any]:
    """The initramfs of this guest program and the kernel's boot modules; returns what a manifest says of it."""
    digest = hashlib.sha256(program).hexdigest()
    content = render_init_archive(program) + (directory / MODULES_ARCHIVE).read_bytes()
    name = f"base-{digest[:12]}.cpio"
    write_atomic(directory / name, content)
    return {
        "base_initramfs": name,
        "guest_program_sha256": digest,
    }


def _describe(
    entry: KernelCatalogEntry, digest: str, built: BuiltKernel, place: Path, program: bytes
) -> KernelManifest:
    with (place / VMLINUX).open("rb") as file:
        vmlinux_sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    initramfs = write_base_initramfs(place, program)
    files, size_bytes = list_files(place)
    return KernelManifest(
        name=entry.name,
        id=secrets.token_hex(6),
        release=built.release,
        architecture=platform.machine(),
        source=built.source,
        recipe_digest=digest,
        created_at=utc_now(),
        vmlinux=VMLINUX,
        vmlinux_sha256=vmlinux_sha256,
        boot_modules=built.boot_modules,
        modules_image=built.modules_image,
        size_bytes=size_bytes,
        files=files,
        **initramfs,
    )
