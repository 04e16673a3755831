"""The terminal we are on: its size, and raw mode that is always undone."""

from __future__ import annotations

import os
import termios
import tty
from contextlib import contextmanager, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_DEFAULT_SIZE = (24, 80)


def is_terminal(descriptor: int) -> bool:
    """False for a closed descriptor, too."""
    try:
        return os.isatty(descriptor)
    except OSError:
        return False


def find_size() -> tuple[int, int]:
    """(rows, columns) of the first of our descriptors that is a terminal; 24 by 80 without one."""
    for descriptor in (1, 0, 2):
        try:
            columns, rows = os.get_terminal_size(descriptor)
        except OSError:
            continue
        if rows and columns:
            return rows, columns
    return _DEFAULT_SIZE


@contextmanager
def raw_mode(descriptor: int) -> Iterator[None]:
    """Every key press as its bytes, Ctrl-C included. Restores the settings found, whatever happens inside."""
    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor, termios.TCSADRAIN)
        yield
    finally:
        with suppress(termios.error):  # the terminal itself may have gone
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
