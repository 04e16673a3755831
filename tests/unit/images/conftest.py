"""Builders that make tiny files, count themselves, and can be held up; and progress that remembers."""

import asyncio
import os
from pathlib import Path

import pytest

from banger.images.kernel_package import BuiltKernel
from banger.images.rootfs import BuiltImage
from banger.services.images import ImageService
from banger.services.kernels import KernelService

EXT4 = bytes(0x438) + b"\x53\xef" + bytes(1000)


class Heard:
    """Progress as a list."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def enter(self, stage: str) -> None:
        self.said.append(f"> {stage}")

    def leave(self) -> None:
        self.said.append("<")

    def tell(self, detail: str) -> None:
        self.said.append(detail)


class FakeBuilder:
    """Stands in for all builders; `gate` holds builds up, `failure` ends them."""

    def __init__(self) -> None:
        self.builds = 0
        self.cancelled = 0
        self.begun = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self.failure: BaseException | None = None

    async def _build(self, directory: Path, progress) -> None:
        self.builds += 1
        (directory / "half-made").write_bytes(b"x")
        progress.enter("fake work")
        self.begun.set()
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        progress.leave()
        if self.failure is not None:
            raise self.failure
        (directory / "half-made").unlink()

    async def kernel(self, package: str, directory: Path, progress) -> BuiltKernel:
        await self._build(directory, progress)
        (directory / "vmlinux").write_bytes(b"\x7fELF kernel")
        (directory / "modules.cpio").write_bytes(b"070701" + bytes(506))
        (directory / "modules.ext4").write_bytes(EXT4)
        return BuiltKernel("6.1.0-fake", "fake 1", ("virtio",), "modules.ext4")

    async def image(self, recipe, directory: Path, progress) -> BuiltImage:
        await self._build(directory, progress)
        for name in ("rootfs.ext4", "work-seed.ext4"):
            (directory / name).write_bytes(EXT4)
            os.truncate(directory / name, 10_000)
        return BuiltImage("fake", {"ID": "fake"})


@pytest.fixture
async def builder():
    return FakeBuilder()


@pytest.fixture
def heard():
    return Heard()


@pytest.fixture
def users():
    """VM names by the id of the build they use; a test fills it."""
    return {}


@pytest.fixture
def images(tmp_path, builder, users):
    builders = {"debian": builder.image, "tar": builder.image}
    return ImageService(
        tmp_path / "images", users_of=lambda build: users.get(build.rpartition("@")[2], ()), builders=builders
    )


@pytest.fixture
def guest_program(tmp_path):
    path = tmp_path / "guest-init"
    path.write_bytes(b"\x7fELF guest 1")
    return path


@pytest.fixture
def kernels(tmp_path, builder, users, guest_program):
    return KernelService(
        tmp_path / "kernels",
        guest_program,
        users_of=lambda build: users.get(build.rpartition("@")[2], ()),
        builders={"debian-package": builder.kernel, "linux-source": builder.kernel},
    )


@pytest.fixture
def visible():
    """What a directory shows besides locks: names only."""

    def look(directory: Path) -> list[str]:
        return sorted(path.name for path in directory.iterdir() if not path.name.startswith(".lock@"))

    return look
