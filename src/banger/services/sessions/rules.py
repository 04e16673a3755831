"""What is known of a session from its row, its VM and its guest's word. Pure.

A session moves forward only, and what has ended stays as it ended: news of a guest may arrive out of order.
"""

from datetime import UTC, datetime

import msgspec

from banger.guest.sessions import SessionInfo
from banger.model.session import SessionRow, SessionState
from banger.model.vm import STARTABLE, VmRecord, VmState

_ORDER = (SessionState.STARTING, SessionState.RUNNING, SessionState.STOPPING)
FORGOTTEN = "the guest does not know it any more"
_NEVER_BEGAN = "the daemon ended before it could begin"


def learn(row: SessionRow, info: SessionInfo) -> SessionRow:
    """The row with what its guest says. The same row when that is nothing new: a guest that talks without end makes
    nobody write without end."""
    if info.state == "removed":
        return row
    state = SessionState(info.state)
    if not row.is_open or (state in _ORDER and _ORDER.index(state) < _ORDER.index(row.state)):
        return row
    end = info.exit_status
    return msgspec.structs.replace(
        row,
        state=state,
        pid=row.pid or info.pid,
        started_at=row.started_at or render_time(info.started_ns),
        ended_at=render_time(info.ended_ns or 0) if info.is_over else "",
        status=end.status if end else None,
        signal=end.signal if end else None,
    )


def find_loss(row: SessionRow, vm: VmRecord | None) -> str:
    """Why a session that has not ended is lost, as far as its VM tells. Empty when it is not."""
    if vm is None:
        return "its VM is gone"
    if vm.state in STARTABLE:
        return f"{vm.name} has ended"
    boot_id = vm.runtime.boot_id if vm.runtime else ""
    if vm.state is VmState.STARTING or (boot_id and row.boot_id and boot_id != row.boot_id):
        return f"{vm.name} has booted since"
    return ""


def miss(row: SessionRow, boot_id: str, now: str) -> SessionRow:
    """Of a session that its guest, in this boot, does not know."""
    if row.state is SessionState.STARTING and row.boot_id in ("", boot_id):
        return msgspec.structs.replace(row, state=SessionState.FAILED, error=_NEVER_BEGAN, ended_at=now)
    same = row.boot_id in ("", boot_id)
    return lose(row, FORGOTTEN if same else "the guest has booted since", now)


def lose(row: SessionRow, why: str, now: str) -> SessionRow:
    return msgspec.structs.replace(row, state=SessionState.LOST, error=why, ended_at=now)


def render_time(since_epoch_ns: int) -> str:
    """A guest's clock may say anything."""
    try:
        moment = datetime.fromtimestamp(since_epoch_ns / 1e9, UTC)
    except (OverflowError, ValueError, OSError):
        return ""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
