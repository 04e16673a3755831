import pytest

from banger.base.problem import Problem
from banger.base.units import GIB, MIB, TIB, parse_duration, parse_size, render_duration, render_size
from banger.cli.values import parse_duration as parse_word


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512", 512 * MIB),
        ("512M", 512 * MIB),
        ("1.5GiB", 3 * GIB // 2),
        ("2g", 2 * GIB),
        ("1T", TIB),
        ("64KiB", 65536),
        (" 8G ", 8 * GIB),
    ],
)
def test_sizes_are_powers_of_1024_and_a_bare_number_is_mib(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "G", "-1G", "1X", "1,5G", "1 2G", "0x10"])
def test_what_is_no_size_is_refused_with_an_example(text):
    with pytest.raises(Problem) as caught:
        parse_size(text)
    assert "1.5GiB" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (8 * GIB, "8 GiB"),
        (20 * GIB + MIB, "20 GiB"),
        (3 * TIB, "3 TiB"),
    ],
)
def test_sizes_read_well(size, text):
    assert render_size(size) == text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("10m", 600), ("2h", 7200), ("1h30m", 5400), ("250ms", 0.25), ("2d", 172800), ("0s", 0)],
)
def test_durations_are_read_as_the_command_line_reads_them(text, seconds):
    assert parse_duration(text) == pytest.approx(seconds)
    assert parse_word(text, "--ttl") == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "5", "s", "1.5h", "-1s", "1w", "1 h", "9" * 400 + "s", "\N{ARABIC-INDIC DIGIT ONE}s"]
)
def test_what_is_no_duration_is_refused_with_an_example(text):
    with pytest.raises(Problem) as caught:
        parse_duration(text)
    assert "1h30m" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.4, "0s"),
        (45, "45s"),
        (600, "10m"),
        (5400, "1h30m"),
        (7200, "2h"),
        (90061, "1d1h"),
        (86460, "1d"),
    ],
)
def test_durations_read_well(seconds, text):
    assert render_duration(seconds) == text


def test_a_number_without_end_is_no_size():
    with pytest.raises(Problem):
        parse_size("9" * 400)
