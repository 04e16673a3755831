"""What `strace -f -y` (or with -T) has written, as what a service has begun and synced. Pure.

A thread belongs to its process, a process to who begot it; lines of a child may come before the line that says whose
child it is. So all is collected first.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

CALLS = "execve,execveat,fork,vfork,clone,clone3,fsync,fdatasync,sync,syncfs"
_LINE = re.compile(r"(\d+) +(?:<\.\.\. )?(\w+)(.*)")
_RESULT = re.compile(r"= (-?\d+)[^=]*$")
_PROGRAM = re.compile(r'"([^"]*)"')
_FILE = re.compile(r"\(\d+<([^>]*)>")
_SYNCS = frozenset({"fsync", "fdatasync", "sync", "syncfs"})
_FORKS = frozenset({"fork", "vfork", "clone", "clone3"})


class Sync(NamedTuple):
    """`program` is empty where the service itself did it."""

    call: str
    file: str
    program: str


class Trace(NamedTuple):
    """`processes` are those that the service and its children begot, each as the programs that it was in turn."""

    processes: list[tuple[str, ...]]
    syncs: list[Sync]


@dataclass
class _Threads:
    """What is known of them by their numbers."""

    leaders: dict[int, int] = field(default_factory=dict)  # who made a thread in its own process
    children: list[int] = field(default_factory=list)
    programs: dict[int, list[str]] = field(default_factory=dict)
    syncs: list[tuple[int, str, str]] = field(default_factory=list)

    def find_process(self, thread: int) -> int:
        while thread in self.leaders:
            thread = self.leaders[thread]
        return thread

    def take(self, thread: int, call: str, rest: str, result: int) -> None:
        if call in _SYNCS:
            file = _FILE.search(rest)
            self.syncs.append((thread, call, file[1] if file else ""))
        elif call.startswith("execve"):
            program = _PROGRAM.search(rest)
            self.programs.setdefault(thread, []).append(Path(program[1]).name if program else "?")
        elif call in _FORKS and "CLONE_THREAD" in rest:
            self.leaders[result] = thread
        elif call in _FORKS:
            self.children.append(result)


def parse_trace(text: str) -> Trace:
    """Of calls that have succeeded."""
    threads = _Threads()
    begun: dict[int, str] = {}  # what a thread's call that has not returned yet was given
    for line in text.splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        thread, call, rest = int(match[1]), match[2], match[3]
        if rest.endswith("<unfinished ...>"):
            begun[thread] = rest
            continue
        rest = begun.pop(thread, "") + rest
        result = _RESULT.search(rest)
        if result is not None and int(result[1]) >= 0:
            threads.take(thread, call, rest, int(result[1]))
    processes = [tuple(threads.programs.get(child, ["no program"])) for child in threads.children]
    names = dict(zip(threads.children, processes, strict=True))
    syncs = [
        Sync(call, file, names.get(threads.find_process(thread), ("",))[-1])
        for thread, call, file in threads.syncs
    ]
    return Trace(processes, syncs)
