import pytest

from banger.base.problem import Problem
from banger.base.units import GIB, MIB, TIB, parse_size, render_size


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
