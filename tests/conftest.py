"""For all tiers."""

import gc
import inspect
import signal
from functools import cache
from types import ModuleType

import pytest
from hypothesis import HealthCheck, settings

# Random cases are the same ones in every run, and how long one takes is this machine's noise: a change is judged by
# what it does. Hunting for new cases: pytest --hypothesis-profile=hunt
_UNTIMED = settings(
    deadline=None,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.function_scoped_fixture,  # a directory that one example leaves behind is the next one's business
    ],
)
settings.register_profile("same", _UNTIMED, derandomize=True)
settings.register_profile("hunt", _UNTIMED)
settings.load_profile("same")


def pytest_configure() -> None:
    """A job that a shell has begun in the background ignores SIGINT, and so would what tests begin and interrupt."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def no_garbage_of_others(request: pytest.FixtureRequest) -> None:
    """Where descriptors are counted: those that earlier tests have left to the garbage collector go first, not in the
    middle of a count."""
    if _counts_descriptors(request.module):
        gc.collect()


@cache
def _counts_descriptors(module: ModuleType) -> bool:
    source = inspect.getsource(module)
    return "/proc/self/fd" in source or "count_descriptors" in source
