"""Any number that a guest may send has words."""

import pytest

from banger.base.problem import Code
from banger.guest.channel import End
from banger.guest.errors import describe_error, render_end, render_exec_end
from banger.guest.frames import Fields


@pytest.mark.parametrize("number", [0, 999, 1000, 1010, 2**31 - 1, 2**31, 2**32 - 1])
def test_an_unknown_number_is_told_as_one(number) -> None:
    assert describe_error(number) == f"error {number}"
    assert render_end(End(number, Fields()), "x").code is Code.OPERATION_FAILED
    assert render_exec_end(End(number, Fields()), "x").exit_status == 126


def test_known_numbers_have_words() -> None:
    assert describe_error(2) == "no such file or directory"
    assert describe_error(1004) == "an entry would leave the target directory"
