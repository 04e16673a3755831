"""For all tiers."""

import signal

from hypothesis import settings

# Random cases are the same ones in every run, so that a change is judged by what it does. Hunting for new ones:
# pytest --hypothesis-profile=default
settings.register_profile("same", derandomize=True)
settings.load_profile("same")


def pytest_configure() -> None:
    """A job that a shell has begun in the background ignores SIGINT, and so would what tests begin and interrupt."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
