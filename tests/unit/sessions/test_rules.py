"""What follows from news of a session, in whatever order they arrive."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.usage.places import make_vm

from banger.base.problem import Code, Problem
from banger.guest.command import ExitStatus
from banger.guest.sessions import SessionInfo
from banger.model.session import Candidate, SessionRow, SessionState, resolve_session
from banger.model.vm import VmState
from banger.services.sessions.rules import find_loss, learn, lose, miss, render_time

ENDED = [SessionState.EXITED, SessionState.FAILED, SessionState.STOPPED, SessionState.LOST]


def make_row(state=SessionState.STARTING, **fields):
    known = {"id": "s-00000001", "vm_id": "0" * 12, "name": "a", "created_at": "", "argv": ("true",)}
    return SessionRow(**(known | {"state": state} | fields))


def make_info(state, *, pid=7):
    end = ExitStatus(3, None) if state in ("exited", "stopped") else None
    ended_ns = 2_000_000_000 if end else None
    return SessionInfo("s-00000001", state, pid, end, 0, 0, 10**9, ended_ns, False, 0, 0, False, 0)


STATES = st.sampled_from(["running", "stopping", "exited", "stopped", "removed"])


@given(st.lists(st.tuples(STATES, st.integers(1, 9))))
def test_a_session_moves_forward_only_and_a_talkative_guest_changes_little(news):
    row, written = make_row(), 0
    order = [SessionState.STARTING, SessionState.RUNNING, SessionState.STOPPING]
    for state, pid in news:
        after = learn(row, make_info(state, pid=pid))
        if after != row:
            written += 1
            assert row.is_open
            if after.state in order:
                assert order.index(after.state) >= order.index(row.state)
        row = after
    assert written <= 3
    assert (row.status is None) == row.is_open


@pytest.mark.parametrize("state", ENDED)
def test_an_end_is_final(state):
    row = make_row(state)
    assert learn(row, make_info("running")) == row


def test_the_end_is_told_with_its_time():
    row = learn(make_row(), make_info("exited"))
    assert (row.state, row.status, row.started_at, row.ended_at) == (
        SessionState.EXITED,
        3,
        "1970-01-01T00:00:01.000Z",
        "1970-01-01T00:00:02.000Z",
    )


@pytest.mark.parametrize("since_epoch_ns", [2**64 - 1, 10**22])
def test_a_guests_clock_may_say_anything(since_epoch_ns):
    assert isinstance(render_time(since_epoch_ns), str)


@pytest.mark.parametrize("state", [VmState.STOPPED, VmState.ERROR, VmState.CREATED, VmState.STARTING])
def test_a_vm_that_does_not_run_has_no_sessions(state):
    assert find_loss(make_row(), make_vm(state=state))
    assert find_loss(make_row(), None)


@pytest.mark.parametrize("state", [VmState.RUNNING, VmState.STOPPING])
def test_a_vm_that_still_runs_has(state):
    assert not find_loss(make_row(), make_vm(state=state))


def test_what_a_guest_does_not_know_never_began_or_is_lost():
    assert miss(make_row(), "boot", "now").state is SessionState.FAILED
    assert miss(make_row(boot_id="boot"), "boot", "now").state is SessionState.FAILED
    assert miss(make_row(boot_id="other"), "boot", "now").state is SessionState.LOST
    assert miss(make_row(SessionState.RUNNING, boot_id="boot"), "boot", "now").state is SessionState.LOST
    assert lose(make_row(), "why", "now").error == "why"


KNOWN = [
    Candidate("s-00000001", "build", "a" * 12, "web"),
    Candidate("s-00000002", "shell", "a" * 12, "web"),
    Candidate("s-10000003", "shell", "b" * 12, "db"),
    Candidate("s-10000004", "s.x", "b" * 12, "db"),
]


@pytest.mark.parametrize(
    ("reference", "found"),
    [
        ("build", 0),
        ("web/build", 0),
        ("s-00000002", 1),
        ("s-1", None),
        ("s-10000003", 2),
        ("db/shell", 2),
        ("b" * 12 + "/shell", 2),
        ("db/s-10000004", 3),
        ("web/s-1", None),
        ("s.x", 3),
        ("shell", None),
        ("web/", None),
        ("/build", None),
        ("s-", None),
        ("", None),
    ],
)
def test_references_mean_one_session_or_are_refused(reference, found):
    if found is not None:
        assert resolve_session(reference, KNOWN) == KNOWN[found].id
        return
    with pytest.raises(Problem) as caught:
        resolve_session(reference, KNOWN)
    assert caught.value.code in (Code.NOT_FOUND, Code.AMBIGUOUS)
    assert caught.value.hint
