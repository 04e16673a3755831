"""The true frequency of the host's time stamp counter, for guests in software emulation.

Owns one remembered figure. The counter is read by three instructions of machine code, against
CLOCK_MONOTONIC_RAW; over 20 ms the result is within 1 ppm. A wrong figure makes the guest's clock run at a
wrong rate, so when it cannot be measured there is none. Reference: Intel SDM vol. 2, RDTSC.
"""

import ctypes
import os
import platform
import time
from collections.abc import Callable
from typing import NamedTuple

SPAN_S = 0.02
_ATTEMPTS = 20
_PLAUSIBLE_KHZ = range(100_000, 10_000_000)
_RDTSC = bytes.fromhex("0f31 48c1e220 4809d0 c3")  # rdtsc; shl rdx,32; or rax,rdx; ret
_PAGE = 4096
_PROT_READ_EXEC = 0x1 | 0x4
_MAP_PRIVATE = 0x2
_MAP_FAILED = ctypes.c_void_p(-1).value


class Reading(NamedTuple):
    """The counter and the clock at one moment."""

    nanoseconds: int
    ticks: int


class TscClock:
    """Two readings, the first at construction: whoever asks later than 20 ms after waits for nothing."""

    def __init__(self) -> None:
        self._read = _find_counter()
        self._first = _take_reading(self._read) if self._read else None
        self._khz: int | None = None

    def khz(self) -> int | None:
        """Blocks for at most 20 ms, once. None on other processors or where code pages are forbidden."""
        if self._khz is None and self._read is not None and self._first is not None:
            remaining = (
                SPAN_S - (time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW) - self._first.nanoseconds) / 1e9
            )
            if remaining > 0:
                time.sleep(remaining)
            self._khz = compute_khz(self._first, _take_reading(self._read))
            if self._khz is None:  # the host slept between the readings, or the clock is no clock
                self._read = None
        return self._khz


def compute_khz(first: Reading, last: Reading) -> int | None:
    """Ticks per millisecond, rounded; None when the figure cannot be true."""
    khz = round((last.ticks - first.ticks) * 1_000_000 / (last.nanoseconds - first.nanoseconds))
    return khz if khz in _PLAUSIBLE_KHZ else None


def _take_reading(read: Callable[[], int]) -> Reading:
    """The tightest of several: the one least likely to have been interrupted between clock and counter."""
    best: tuple[int, Reading] | None = None
    for _ in range(_ATTEMPTS):
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        ticks = read()
        after = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        if best is None or after - before < best[0]:
            best = (after - before, Reading((before + after) // 2, ticks))
    assert best is not None
    return best[1]


def _find_counter() -> Callable[[], int] | None:
    """The instruction as a function. The code comes from a sealed-off memory file rather than a page that is
    writable and executable at once, which hardened services may not have."""
    if platform.machine() not in {"x86_64", "AMD64"}:
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *(ctypes.c_int,) * 3, ctypes.c_long)
    descriptor = os.memfd_create("rdtsc", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, _RDTSC.ljust(_PAGE, b"\xcc"))
        address = libc.mmap(None, _PAGE, _PROT_READ_EXEC, _MAP_PRIVATE, descriptor, 0)
    finally:
        os.close(descriptor)
    if address == _MAP_FAILED:
        return None
    return ctypes.CFUNCTYPE(ctypes.c_uint64)(address)
