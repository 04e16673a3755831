from banger.base.units import GIB
from banger.model.policy import Limits
from banger.model.sizing import Asked, HostSize, derive_sizes
from banger.model.vm import Origin

BIG = HostSize(cpus=32, memory_bytes=256 * GIB)
SMALL = HostSize(cpus=2, memory_bytes=2 * GIB)


def test_a_flag_wins_over_config_over_host():
    sizes = derive_sizes(Asked(vcpus=3), Asked(vcpus=5, memory_mib=700), BIG)
    assert (sizes.vcpus, sizes.origins["vcpus"]) == (3, Origin.FLAG)
    assert (sizes.memory_mib, sizes.origins["memory_mib"]) == (700, Origin.CONFIG)


def test_a_big_host_gives_at_most_four_cpus_and_eight_gib():
    sizes = derive_sizes(Asked(), Asked(), BIG)
    assert (sizes.vcpus, sizes.memory_mib) == (4, 8192)
    assert sizes.origins["vcpus"] is Origin.HOST


def test_a_small_host_gives_the_floor():
    sizes = derive_sizes(Asked(), Asked(), SMALL)
    assert (sizes.vcpus, sizes.memory_mib) == (1, 512)
    assert set(sizes.origins.values()) == {Origin.FLOOR}


def test_what_is_derived_keeps_within_the_limits_for_one_vm():
    limits = Limits(vcpus_per_vm=2, memory_per_vm_bytes=GIB, disk_per_vm_bytes=10 * GIB)
    sizes = derive_sizes(Asked(), Asked(), BIG, limits)
    assert sizes[:4] == (2, 1024, 5 * GIB, 5 * GIB)
    assert set(sizes.origins.values()) == {Origin.CONFIG}


def test_one_derived_disk_takes_what_the_other_leaves():
    sizes = derive_sizes(Asked(disk_size_bytes=9 * GIB), Asked(), BIG, Limits(disk_per_vm_bytes=10 * GIB))
    assert (sizes.disk_size_bytes, sizes.system_overlay_size_bytes) == (9 * GIB, GIB)


def test_what_somebody_asked_for_is_not_cut():
    limits = Limits(vcpus_per_vm=2, memory_per_vm_bytes=GIB)
    sizes = derive_sizes(Asked(vcpus=3), Asked(memory_mib=2048), BIG, limits)
    assert (sizes.vcpus, sizes.memory_mib) == (3, 2048)
