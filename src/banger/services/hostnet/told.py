"""Clean-ups that go on whatever fails. Owns nothing."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from banger.base.problem import Problem


@contextmanager
def told(log: logging.Logger, what: str) -> Iterator[None]:
    """What failed is in the log, and nowhere else."""
    try:
        yield
    except Problem as problem:
        log.warning(what, extra={"why": problem.brief})
