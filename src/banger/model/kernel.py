"""Kernels: what a VM boots, and the manifest that describes one in managed storage."""

import msgspec


class KernelManifest(msgspec.Struct, frozen=True, kw_only=True):
    """`manifest.json` of a managed kernel; written last, so that a kernel without one does not exist.

    File names are relative to the kernel's directory. `modules_image` is a read-only ext4 that the guest
    mounts at /lib/modules/RELEASE; a kernel with everything built in has none.
    """

    name: str
    release: str
    architecture: str
    source: str
    recipe_digest: str
    created_at: str
    vmlinux: str = "vmlinux"
    vmlinux_sha256: str
    base_initramfs: str = "base.cpio"
    base_initramfs_sha256: str
    boot_modules: tuple[str, ...] = ()
    modules_image: str | None = None
    size_bytes: int = 0


class KernelCatalogEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A kernel that `kernel pull` can obtain: by extraction from a distribution's package, or by a build."""

    name: str
    description: str
    method: str  # "debian-package" | "linux-source"
    package: str
    default: bool = False
