"""How work tells what it is doing, without knowing who watches."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable


class Progress(Protocol):
    """What long work reports to. An operation implements it; so does a test's list."""

    def enter(self, stage: str) -> None:
        """A named stage begins. Stages follow one another; entering one ends the one before."""

    def leave(self) -> None:
        """The current stage is over."""

    def tell(self, detail: str) -> None:
        """One line about the current stage: what it waits for, how far it is."""


@runtime_checkable
class Naming(Protocol):
    """A Progress that keeps a record, in which it notes what the work is about."""

    def name_object(self, object_id: str, name: str = "") -> None: ...


def name_object(progress: Progress, object_id: str, name: str = "") -> None:
    """Tells which object the work is about as soon as that is settled: what is recorded by then is what a later
    daemon can judge by, should this one die. Where nobody keeps a record, nothing happens."""
    if isinstance(progress, Naming):
        progress.name_object(object_id, name)


class Silent:
    """Progress that nobody watches."""

    def enter(self, stage: str) -> None: ...

    def leave(self) -> None: ...

    def tell(self, detail: str) -> None: ...


@contextmanager
def stage(progress: Progress, name: str) -> Iterator[None]:
    progress.enter(name)
    try:
        yield
    finally:
        progress.leave()
