from banger.model.moment import Moment, Ttl, elapsed_s, settle_ttl, surely_elapsed_s
from banger.services.moment import read_moment

BOOT, NEXT_BOOT = "11111111-boot", "22222222-boot"


def at(clock: str, uptime_s: float, boot: str = BOOT) -> Moment:
    return Moment(at=clock, host_boot=boot, uptime_s=uptime_s)


NOON = at("2026-06-01T12:00:00.000Z", 1000.0)


def test_within_a_boot_only_the_uptime_counts():
    assert elapsed_s(NOON, at("2026-06-01T12:01:00.000Z", 1060.0)) == 60
    assert elapsed_s(NOON, at("2027-06-01T12:01:00.000Z", 1060.0)) == 60
    assert elapsed_s(NOON, at("2025-06-01T12:01:00.000Z", 1060.0)) == 60


def test_across_a_reboot_the_clock_is_all_there_is():
    assert elapsed_s(NOON, at("2026-06-01T13:00:00.000Z", 5.0, NEXT_BOOT)) == 3600


def test_no_time_is_negative():
    assert elapsed_s(NOON, at("2025-06-01T12:00:00.000Z", 5.0, NEXT_BOOT)) == 0
    assert elapsed_s(NOON, at("2026-06-01T12:00:00.000Z", 999.0)) == 0


def test_across_a_reboot_only_the_time_since_has_surely_passed():
    assert surely_elapsed_s(NOON, at("2027-06-01T12:00:00.000Z", 5.0, NEXT_BOOT)) == 5
    assert surely_elapsed_s(NOON, at("2025-06-01T12:00:00.000Z", 5.0, NEXT_BOOT)) == 5
    assert surely_elapsed_s(NOON, at("2025-06-01T12:00:00.000Z", 1007.0)) == 7


def test_a_time_to_live_runs_out():
    ttl = Ttl(seconds=60, since=NOON)
    assert ttl.left_s(at("2026-06-01T12:00:20.000Z", 1020.0)) == 40
    assert ttl.left_s(at("2026-06-01T12:02:00.000Z", 1120.0)) == -60


def test_a_start_counts_anew_as_long_as_was_asked_for_now_or_before():
    later = at("2026-06-01T13:00:00.000Z", 4600.0)
    before = Ttl(seconds=60, since=NOON)
    assert settle_ttl(before, None, later) == Ttl(seconds=60, since=later)
    assert settle_ttl(before, 7.0, later) == Ttl(seconds=7, since=later)
    assert settle_ttl(None, 7.0, later) == Ttl(seconds=7, since=later)
    assert settle_ttl(None, None, later) is None


def test_the_host_tells_moments_of_one_boot_in_order():
    first, second = (read_moment() for _ in range(2))
    assert first.host_boot == second.host_boot != ""
    assert second.uptime_s >= first.uptime_s > 0
