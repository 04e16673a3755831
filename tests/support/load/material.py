"""Kernel and image of fake guests, in the form that the product keeps them in: nothing is built or obtained."""

import hashlib
import platform
import subprocess
from pathlib import Path

import msgspec

from banger import guest
from banger.base.process import get_tool
from banger.images.shelf import MANIFEST, list_files
from banger.model.image import DEFAULT_IMAGE, ImageManifest
from banger.model.kernel import DEFAULT_KERNEL, KernelManifest
from banger.vmm.fake import FAKE_INITRAMFS, FAKE_KERNEL

GUEST_PROGRAM = Path(guest.__file__).parent / "bin" / f"banger-init-{platform.machine()}"
_MIB = 1024 * 1024
_DISK_MIB = 64


def make_material(data: Path) -> None:
    image = _make_place(data / "images", DEFAULT_IMAGE)
    for name in ("rootfs.ext4", "work-seed.ext4"):
        disk = image / name
        with disk.open("wb") as file:
            file.truncate(_DISK_MIB * _MIB)
        tool = get_tool("mke2fs", package="e2fsprogs")
        subprocess.run((tool, "-q", "-F", "-t", "ext4", "-E", "nodiscard", str(disk)), check=True)
    files, size_bytes = list_files(image)
    _write_manifest(
        image,
        ImageManifest(
            name=DEFAULT_IMAGE,
            id="1",
            source="tests",
            recipe_digest="",
            created_at="2026-01-01T00:00:00.000Z",
            work_seed="work-seed.ext4",
            virtual_size_bytes=_DISK_MIB * _MIB,
            size_bytes=size_bytes,
            files=files,
        ),
    )
    kernel = _make_place(data / "kernels", DEFAULT_KERNEL)
    (kernel / "vmlinux").write_bytes(FAKE_KERNEL)
    (kernel / "base.cpio").write_bytes(FAKE_INITRAMFS.ljust(512, b"\0"))
    files, size_bytes = list_files(kernel)
    _write_manifest(
        kernel,
        KernelManifest(
            name=DEFAULT_KERNEL,
            id="1",
            release="6.1.0",
            architecture="x86_64",
            source="tests",
            recipe_digest="",
            created_at="2026-01-01T00:00:00.000Z",
            vmlinux_sha256="",
            guest_program_sha256=hashlib.sha256(GUEST_PROGRAM.read_bytes()).hexdigest(),
            size_bytes=size_bytes,
            files=files,
        ),
    )


def _make_place(shelf: Path, name: str) -> Path:
    shelf.mkdir(mode=0o700, parents=True)
    place = shelf / f"{name}@1"
    place.mkdir(mode=0o700)
    (shelf / name).symlink_to(place.name)
    return place


def _write_manifest(place: Path, manifest: msgspec.Struct) -> None:
    (place / MANIFEST).write_bytes(msgspec.json.encode(manifest))
