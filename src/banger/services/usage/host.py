"""What the kernel tells of VMMs: /proc, the counters of taps, the control groups of jails.

Owns the forms of these files. Reads only; what cannot be read is None. Blocks; nothing here is for the event loop.
"""

import os
from pathlib import Path
from typing import NamedTuple

from banger.model.vm import VmRuntime
from banger.privileged.contract.machines import JAIL_CGROUPS

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_KIB = 1024
_GONE = ("Z", "X")


class Counters(NamedTuple):
    """Of one VMM, at one moment. `received` and `sent` are the guest's, so a tap's the other way round."""

    cpu_s: float | None = None
    memory_bytes: int | None = None
    received_bytes: int | None = None
    sent_bytes: int | None = None
    block_read_bytes: int | None = None
    block_written_bytes: int | None = None


class HostFiles:
    """The kernel's files; `reads` counts them, since each one is work for the kernel."""

    def __init__(
        self,
        *,
        proc: Path = Path("/proc"),
        interfaces: Path = Path("/sys/class/net"),
        cgroups: Path = Path(JAIL_CGROUPS),
    ) -> None:
        self._proc = proc
        self._interfaces = interfaces
        self._cgroups = cgroups
        self.reads = 0

    def measure_cpu(self, runtime: VmRuntime) -> float | None:
        return parse_cpu(self._read(self._proc / str(runtime.pid) / "stat"), runtime.start_time)

    def measure(self, runtime: VmRuntime) -> Counters:
        """All None when the process is not the VMM any more."""
        process = self._proc / str(runtime.pid)
        memory = self._measure_jail(runtime.jail) if runtime.jail else self._measure_process(process)
        # Only the owner's own processes tell; the control groups of jails do not count blocks.
        blocks = "" if runtime.jail else self._read(process / "io")
        received, sent = self._measure_tap(runtime.tap) if runtime.tap else (None, None)
        # Last: a pid that is still the VMM's now was the VMM's all along.
        cpu_s = self.measure_cpu(runtime)
        if cpu_s is None:
            return Counters()
        return Counters(
            cpu_s=cpu_s,
            memory_bytes=memory,
            received_bytes=received,
            sent_bytes=sent,
            block_read_bytes=find_number(blocks, "read_bytes:"),
            block_written_bytes=find_number(blocks, "write_bytes:"),
        )

    def _measure_process(self, process: Path) -> int | None:
        """proc_pid_smaps(5): its share of what it has in memory, pages that others have too counted in part."""
        kib = find_number(self._read(process / "smaps_rollup"), "Pss:")
        return None if kib is None else kib * _KIB

    def _measure_jail(self, jail: str) -> int | None:
        """A jailed VMM is somebody else's process. What its control group has mapped is the same quantity, but for
        page cache, which is left out, and for pages that it shares with nobody anyway."""
        text = self._read(self._cgroups / jail / "memory.stat")
        anonymous, mapped = find_number(text, "anon"), find_number(text, "file_mapped")
        return None if anonymous is None or mapped is None else anonymous + mapped

    def _measure_tap(self, tap: str) -> tuple[int | None, int | None]:
        """What the host sends on a tap is what the guest receives."""
        counters = self._interfaces / tap / "statistics"
        return _parse_count(self._read(counters / "tx_bytes")), _parse_count(
            self._read(counters / "rx_bytes")
        )

    def _read(self, path: Path) -> str:
        """Empty when it cannot be read."""
        self.reads += 1
        try:
            return path.read_text("utf-8", "replace")
        except OSError:
            return ""


def parse_cpu(stat: str, start_time: int) -> float | None:
    """Seconds of processor time of all its threads, guest code included, out of proc_pid_stat(5). None for a process
    that started at another time, or has ended. The command in parentheses may hold anything."""
    fields = stat.rpartition(")")[2].split()
    if len(fields) < 20 or fields[0] in _GONE or int(fields[19]) != start_time:
        return None
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def find_number(text: str, name: str) -> int | None:
    """Of the line `NAME NUMBER …`."""
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == name and words[1].isdecimal():
            return int(words[1])
    return None


def _parse_count(text: str) -> int | None:
    return int(text) if text.strip().isdecimal() else None
