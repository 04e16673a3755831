import pytest

from banger.privileged.helper.id_maps import Owner, find_first_id

ALICE = Owner("alice", 1000, 1000)


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("alice:100000:65536", 100000),
        ("1000:100000:65536", 100000),
        ("bob:100000:65536\nalice:165536:65536\nalice:300000:65536\n", 165536),
        ("alice:100000:1000\nalice:200000:100000\n", 200000),
        (" alice:100000:65536 ", 100000),
        ("alice:4294836224:65536", 4294836224),
    ],
)
def test_the_first_range_of_the_owners_that_is_long_enough(text: str, first: int) -> None:
    assert find_first_id(text, ALICE, 1000) == first


@pytest.mark.parametrize(
    "text",
    [
        "",
        "bob:100000:65536",
        "alic:100000:65536",
        "alice2:100000:65536",
        "1001:100000:65536",
        "alice:100000:65535",
        "alice:0:65536",  # root
        "alice:500:65536",  # alice herself: the kernel refuses ranges that overlap
        "alice:4294901760:65536",  # the last one is no id
        "alice:9999999999:65536",
        "alice:99999999999999999999:65536",
        "alice:-100000:65536",
        "alice:100000",
        "alice:100000:65536:1",
        "alice:1e5:65536",
        "alice:\u0661\u0660\u0660\u0660\u0660\u0660:65536",
        "#alice:100000:65536",
        "alice:100000:65536 # hers",
    ],
)
def test_anything_else_is_passed_over(text: str) -> None:
    assert find_first_id(text, ALICE, 1000) is None
    assert find_first_id(text + "\nalice:100000:65536\n", ALICE, 1000) == 100000
