"""Kernels: what a VM boots, and the manifest that describes one in managed storage."""

from typing import Literal

import msgspec

DEFAULT_KERNEL = "debian-cloud"


class KernelManifest(msgspec.Struct, frozen=True, kw_only=True):
    """`manifest.json` of a managed kernel; written last, so that a kernel without one does not exist.

    `id` names this one build. File names are relative to the kernel's directory. `modules_image` is a
    read-only ext4 that the guest mounts at /lib/modules/RELEASE; a kernel with everything built in has none.
    `guest_program_sha256` says which guest program the base initramfs carries. `files` are the sizes of all
    files, to notice a damaged one. Nothing verifies `vmlinux_sha256` yet: it is for people and for a later
    `verify`.
    """

    name: str
    id: str = ""
    release: str
    architecture: str
    source: str
    recipe_digest: str
    created_at: str
    vmlinux: str = "vmlinux"
    vmlinux_sha256: str
    base_initramfs: str = "base.cpio"
    guest_program_sha256: str = ""
    boot_modules: tuple[str, ...] = ()
    modules_image: str | None = None
    size_bytes: int = 0
    files: dict[str, int] = {}


class KernelCatalogEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A kernel that `kernel pull` can obtain: by extraction from a distribution's package, or by a build."""

    name: str
    description: str
    method: Literal["debian-package", "linux-source"]
    package: str
