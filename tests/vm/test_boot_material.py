"""Kernel and default image made for real, from the distribution's packages; then looked into without mounting.

Needs the network (or apt's cache), and root or subordinate ids. Booting them is for the other tests of this tier.
"""

import subprocess
from pathlib import Path

import pytest

from banger.base.process import find_tool
from banger.base.progress import Silent
from banger.model.image import ImageRecipe
from banger.services.images import ImageService
from banger.services.kernels import KernelService

pytestmark = [
    pytest.mark.vm,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        not all(map(find_tool, ("apt-get", "dpkg-deb", "depmod", "mmdebstrap", "mke2fs", "debugfs"))),
        reason="needs apt, dpkg, kmod, mmdebstrap and e2fsprogs",
    ),
]


def look(disk: Path, request: str) -> str:
    """debugfs's answer about an unmounted file system."""
    argv = [str(find_tool("debugfs")), "-R", request, str(disk)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def check(disk: Path) -> None:
    subprocess.run([str(find_tool("e2fsck")), "-fn", str(disk)], check=True, capture_output=True)


async def test_the_cloud_kernel_is_extracted_with_its_modules(tmp_path):
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF program")
    kernels = KernelService(tmp_path / "kernels", program)
    manifest, directory = await kernels.ensure(Silent())
    assert (directory / manifest.vmlinux).read_bytes()[:4] == b"\x7fELF"
    assert manifest.boot_modules.index("virtio") < manifest.boot_modules.index("virtio_blk")
    assert manifest.modules_image is not None
    modules = directory / manifest.modules_image
    check(modules)
    assert "overlay" in look(modules, "cat modules.dep")
    assert "not found" in look(modules, "stat no-such-file")


async def test_the_default_image_is_trimmed_and_holds_nothing_of_this_host(tmp_path):
    images = ImageService(tmp_path / "images")
    manifest, directory = await images.build(ImageRecipe(name="debian-bookworm"), Silent())
    root, work = directory / manifest.rootfs, directory / str(manifest.work_seed)
    check(root)
    check(work)
    assert manifest.os_release["ID"] == "debian"
    assert manifest.size_bytes < 600 * 1024**2
    for missing in ("/etc/resolv.conf", "/etc/hostname", "/etc/ssh/ssh_host_ed25519_key"):
        assert "not found" in look(root, f"stat {missing}")
    assert "Size: 0" in look(root, "stat /etc/machine-id")
    assert "/dev/null" in look(root, "stat /etc/systemd/system/apt-daily.timer")
    assert "Mode:  04755" in look(root, "stat /usr/bin/sudo")
    assert "security.capability" in look(root, "ea_list /usr/bin/ping")
    assert "Mode:  0700" in look(work, "stat <2>")
    assert "not found" in look(work, "stat /lost+found")
    assert [path.name for path in directory.iterdir() if path.is_dir()] == []
