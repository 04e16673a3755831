"""Plans and digests: pure functions with golden values."""

from pathlib import Path

import msgspec
import pytest

from banger.base.problem import Code
from banger.images import catalog, ext4
from banger.images.debian_trim import DEBIAN_EDIT
from banger.images.kernel_source import plan_make
from banger.images.ownership import plan_namespace
from banger.images.rootfs_debian import plan_bootstrap
from banger.images.small_config import find_missing, render_fragment
from banger.images.tools import render_line, render_problem
from banger.model.image import ImageRecipe


def test_digests_say_the_same_for_the_same_and_another_for_anything_else():
    recipe = ImageRecipe(name="x", packages=("a", "b"))
    digest = catalog.digest_image_recipe(recipe)
    assert (
        catalog.digest_image_recipe(msgspec.structs.replace(recipe, name="y", packages=("b", "a", "a")))
        == digest
    )
    changes = (
        {"packages": ("a",)},
        {"suite": "trixie"},
        {"size_bytes": 2**30},
        {"tarball": "/x"},
        {"kernel": "k"},
    )
    others = {catalog.digest_image_recipe(msgspec.structs.replace(recipe, **change)) for change in changes}
    assert len(others | {digest}) == len(changes) + 1
    assert catalog.digest_image_recipe(recipe) != catalog.digest_image_recipe(
        msgspec.structs.replace(recipe, tarball="/x"), "00"
    )
    assert len({catalog.digest_kernel_recipe(entry) for entry in catalog.KERNELS}) == len(catalog.KERNELS)


def test_the_bootstrap_names_no_mirror():
    argv = plan_bootstrap(
        "/usr/bin/mmdebstrap", ImageRecipe(name="x", packages=("tmux",)), Path("/o.tar"), mode="root"
    )
    assert argv[:4] == ("/usr/bin/mmdebstrap", "--mode=root", "--variant=minbase", "--format=tar")
    assert argv[4].startswith("--include=systemd-sysv,")
    assert argv[4].endswith(",tmux")
    assert argv[5:] == ("bookworm", "/o.tar")


def test_a_disk_is_planned_with_every_feature_named():
    argv = ext4.plan_disk("/sbin/mke2fs", Path("/o"), Path("/t"), 8 * 2**30, label="root", journal_mib=16)
    assert argv[argv.index("-O") + 1].startswith("none,")
    assert "metadata_csum_seed" not in " ".join(argv)
    assert argv[-4:] == ("-d", "/t", "/o", "8388608k")


def test_a_tree_is_measured_with_room_for_all(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").write_bytes(bytes(10_000))
    size_bytes, inodes = ext4.measure_tree(tmp_path)
    assert size_bytes % 4096 == 0
    assert size_bytes > 3 * 4096
    assert inodes == 19


def test_the_digest_of_a_disk_does_not_see_holes(tmp_path):
    sparse, full = tmp_path / "sparse", tmp_path / "full"
    content = bytes(300_000) + b"data" + bytes(300_000)
    full.write_bytes(content)
    with sparse.open("wb") as file:
        file.truncate(len(content))
        file.seek(300_000)
        file.write(b"data")
    assert ext4.digest_disk(sparse) == ext4.digest_disk(full)
    full.write_bytes(content + b"\0")
    assert ext4.digest_disk(sparse) != ext4.digest_disk(full)


@pytest.mark.parametrize("content", [b"", b"short", bytes(5000)])
def test_what_is_no_ext4_is_seen(tmp_path, content):
    path = tmp_path / "disk"
    path.write_bytes(content)
    assert not ext4.is_ext4(path)
    assert not ext4.is_ext4(tmp_path / "missing")


def test_the_edit_keeps_nothing_of_the_build_host():
    for name in (
        "etc/ssh/ssh_host_ed25519_key",
        "etc/resolv.conf",
        "etc/hostname",
        "etc/machine-id",
        "run/x/y",
    ):
        assert DEBIAN_EDIT.drops(name)
    assert DEBIAN_EDIT.drops("usr/lib/systemd/system/multi-user.target.wants/systemd-logind.service")
    assert not DEBIAN_EDIT.drops("etc/ssh/sshd_config")
    assert not DEBIAN_EDIT.drops("root/.bashrc")
    assert not DEBIAN_EDIT.drops("usr/lib/systemd/system/systemd-logind.service")


def test_namespaces():
    assert plan_namespace("/u", subordinate=True) == ("/u", "--map-auto", "--map-root-user", "--")
    assert plan_namespace("/u", subordinate=False) == ("/u", "--map-root-user", "--")


def test_the_fragment_is_sorted_and_its_gaps_are_found():
    fragment = render_fragment()
    assert "CONFIG_EXT4_FS=y\n" in fragment
    assert "CONFIG_MODULES" not in fragment
    assert find_missing(fragment, fragment) == ()
    assert find_missing("CONFIG_A=y\nCONFIG_B=y\n", "CONFIG_A=y\n# CONFIG_B is not set\n") == ("CONFIG_B",)


def test_kernels_build_at_the_lowest_priority():
    assert plan_make("/m", Path("/s"), Path("/f"), "vmlinux", jobs=2)[:3] == ("/usr/bin/nice", "-n", "19")


def test_lines_of_tools_lose_prefix_addresses_and_control_characters():
    assert render_line(b"I: fetching http://example.invalid/debian now\n") == "fetching \u2026 now"
    assert render_line(b" 10%\r 20%\x1b[K\n") == "20%[K"


def test_a_full_disk_is_recognised_in_what_a_tool_says():
    full = render_problem(("/sbin/mke2fs",), 1, b"tar: x: Cannot write: No space left on device\n")
    assert full.code is Code.NO_SPACE
    assert render_problem(("/sbin/mke2fs",), 1, b"bad\n").code is Code.OPERATION_FAILED
