"""Stages of a boot, measured on their way to whoever watches."""

from collections.abc import Callable

from banger.base.progress import Progress
from banger.model.vm import Stage


class Stopwatch:
    """A Progress that keeps what it passes on."""

    def __init__(self, progress: Progress, monotonic: Callable[[], float]) -> None:
        self._progress = progress
        self._monotonic = monotonic
        self._begin = monotonic()
        self._entered: tuple[str, float] | None = None
        self.stages: list[Stage] = []

    def enter(self, stage: str) -> None:
        self.leave()
        self._entered = (stage, self._monotonic())
        self._progress.enter(stage)

    def leave(self) -> None:
        if self._entered is None:
            return
        name, started = self._entered
        self._entered = None
        self.stages.append(
            Stage(
                name=name,
                started_ms=(started - self._begin) * 1000,
                duration_ms=(self._monotonic() - started) * 1000,
            )
        )
        self._progress.leave()

    def tell(self, detail: str) -> None:
        self._progress.tell(detail)
