"""What repeated Ctrl-C means, by a clock of ours."""

import signal

import pytest

from banger.cli.signals import Interrupts

INT, KILL = int(signal.SIGINT), int(signal.SIGKILL)


@pytest.mark.parametrize(
    ("presses_s", "sent"),
    [
        ((7.0,), [INT]),
        ((7.0, 8.0), [INT, KILL]),
        ((7.0, 8.1), [INT, INT]),  # the second is a first one again
        ((7.0, 8.1, 9.0), [INT, INT, KILL]),
        ((7.0, 7.5, 7.6), [INT, KILL, None]),
        ((7.0, 7.5, 99.0), [INT, KILL, None]),  # who has killed once leaves, however late
    ],
)
def test_the_first_interrupts_a_quick_second_kills_and_then_we_leave(presses_s, sent):
    interrupts = Interrupts()
    assert [interrupts.press(now_s) for now_s in presses_s] == sent
