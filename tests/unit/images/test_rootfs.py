"""What mke2fs is given: never a link of the archive's."""

import io
import os
import shutil
import tarfile

import pytest

from banger.base.problem import Code, Problem
from banger.base.progress import Silent
from banger.images import rootfs
from banger.images.archive import MOUNT_POINTS, TreeEdit
from banger.images.ownership import Ownership

TOOLS = ("tar", "mke2fs", "debugfs", "stat")
needs_root_and_tools = pytest.mark.skipif(
    os.getuid() != 0
    or any(shutil.which(tool, path="/usr/bin:/bin:/usr/sbin:/sbin") is None for tool in TOOLS),
    reason="needs root, tar and e2fsprogs",
)


def hostile_archive(tmp_path, *, parent: bool = False):
    """`root` is a link to a directory of the host's."""
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "key").write_text("SECRET OF THE HOST")
    path = tmp_path / "hostile.tar"
    with tarfile.open(path, "w") as tar:
        info = tarfile.TarInfo("root")
        info.type, info.linkname = tarfile.SYMTYPE, str(secrets)
        tar.addfile(info)
        tar.addfile(tarfile.TarInfo("f"), io.BytesIO())
    return path


@needs_root_and_tools
async def test_a_link_in_the_place_of_a_home_never_reaches_mke2fs(tmp_path, monkeypatch):
    archive = hostile_archive(tmp_path)
    image = tmp_path / "image"
    image.mkdir()
    for edit in (TreeEdit(directories=MOUNT_POINTS), TreeEdit()):
        with pytest.raises(Problem, match="no directory") as caught:
            await rootfs.build_disks(archive, edit, image, 64 << 20, Silent(), Ownership())
        assert caught.value.code is Code.BAD_REQUEST
        assert list(image.iterdir()) == []
    # And should the archive's own check ever miss one:
    monkeypatch.setattr("banger.images.archive.MOUNT_POINTS", {})
    with pytest.raises(Problem, match="/root of the archive is no directory") as caught:
        await rootfs.build_disks(archive, TreeEdit(), image, 64 << 20, Silent(), Ownership())
    assert caught.value.code is Code.BAD_REQUEST
    assert list(image.iterdir()) == []


@pytest.mark.skipif(shutil.which("stat") is None, reason="needs stat")
async def test_only_a_directory_is_one(tmp_path):
    (tmp_path / "root").mkdir()
    await rootfs.check_directory(tmp_path / "root", prefix=())
    (tmp_path / "link").symlink_to(tmp_path / "root")
    (tmp_path / "file").write_bytes(b"")
    for name in ("link", "file", "missing"):
        with pytest.raises(Problem, match="no directory") as caught:
            await rootfs.check_directory(tmp_path / name, prefix=())
        assert caught.value.code is Code.BAD_REQUEST
