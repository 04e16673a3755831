import gzip
import lzma

import pytest
import zstandard

from banger.base.problem import Problem
from banger.images.modules import (
    BootModules,
    module_name,
    parse_builtin,
    parse_dependencies,
    plan_load_order,
    read_module,
)

DEPENDENCIES = parse_dependencies(
    """\
kernel/net/net_failover.ko: kernel/net/failover.ko
kernel/net/failover.ko:
kernel/drivers/virtio/virtio.ko: kernel/drivers/virtio/virtio_ring.ko
kernel/drivers/virtio/virtio_ring.ko:
kernel/drivers/net/virtio_net.ko.xz: kernel/net/net_failover.ko kernel/net/failover.ko \
kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko
kernel/drivers/char/hw_random/virtio-rng.ko: kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko
"""
)
BUILTIN = parse_builtin("kernel/fs/ext4/ext4.ko\nkernel/drivers/block/loop-thing.ko\n")


def test_each_module_comes_after_what_it_needs_and_once():
    order = plan_load_order(DEPENDENCIES, BUILTIN, BootModules(("virtio_net",), ("virtio_rng",)))
    names = [module_name(path) for path in order]
    assert names == ["failover", "net_failover", "virtio_ring", "virtio", "virtio_net", "virtio_rng"]


def test_dependencies_in_any_order_are_sorted_out():
    listed = {"a.ko": ("b.ko", "c.ko"), "b.ko": (), "c.ko": ("b.ko",)}
    assert plan_load_order(listed, (), BootModules(("a",), ())) == ("b.ko", "c.ko", "a.ko")


def test_built_in_modules_are_left_out():
    assert plan_load_order(DEPENDENCIES, BUILTIN, BootModules(("ext4",), ("loop_thing",))) == ()


def test_an_unknown_optional_module_is_left_out():
    assert plan_load_order(DEPENDENCIES, BUILTIN, BootModules((), ("nothing",))) == ()


def test_a_missing_required_module_is_a_problem():
    with pytest.raises(Problem, match="virtio_blk"):
        plan_load_order(DEPENDENCIES, BUILTIN, BootModules(("virtio_blk",), ()))


def test_a_circle_is_a_problem_not_a_recursion():
    with pytest.raises(Problem, match="circle"):
        plan_load_order({"a.ko": ("b.ko",), "b.ko": ("a.ko",)}, (), BootModules(("a",), ()))


@pytest.mark.parametrize(
    ("suffix", "pack"),
    [
        ("", bytes),
        (".xz", lzma.compress),
        (".zst", zstandard.ZstdCompressor(write_content_size=False).compress),
        (".gz", gzip.compress),
    ],
)
def test_compressed_modules_are_read(tmp_path, suffix, pack):
    path = tmp_path / f"m.ko{suffix}"
    path.write_bytes(pack(b"\x7fELF module"))
    assert read_module(path) == b"\x7fELF module"
