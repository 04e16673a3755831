from banger.base.units import GIB
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
