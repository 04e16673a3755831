"""What a watcher of an operation is told, by the daemon and to the clients (docs/reference/rpc.md)."""

from typing import Literal

import msgspec

from banger.model.operation import Operation


class StageEvent(msgspec.Struct, frozen=True, kw_only=True, tag="stage", omit_defaults=True):
    """A stage began, or ended after `duration_ms`; times count from the operation's beginning."""

    name: str
    state: Literal["begin", "end"]
    started_ms: float
    duration_ms: float | None = None


class DetailEvent(msgspec.Struct, frozen=True, kw_only=True, tag="detail"):
    """One line about a stage; `stage` is empty between stages."""

    stage: str
    text: str


class SnapshotEvent(msgspec.Struct, frozen=True, kw_only=True, tag="snapshot"):
    """Stands for all events before it: whoever watches was too slow to be told each."""

    operation: Operation


Event = StageEvent | DetailEvent | SnapshotEvent
