"""For all tiers."""

import signal


def pytest_configure() -> None:
    """A job that a shell has begun in the background ignores SIGINT, and so would what tests begin and interrupt."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
