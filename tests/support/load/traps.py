"""Points at which a daemon can be killed, without a line in the product: what it calls is wrapped before it is imported.

A point is a name, `before` or `after`, and the how-manieth of its kind since the traps were set: "after row running 1".
Setting them again (SIGUSR1) reads the orders from a file, so that one process serves many tries. What happens at the
point is a SIGKILL of the daemon by itself, or whatever `act` is given.
"""

import json
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

ORDERS = "BANGER_TRAPS"  # names the file with the orders
DAEMON, VMM = "daemon", "vmm"
_ID, _RANDOM = re.compile("[0-9a-f]{12}"), re.compile(r"\.[0-9a-f]{8,}")


class Traps:
    """`at` is the point to act at, or its number among all of them; `record` is the file that all points are written to.
    Empty is neither."""

    def __init__(self) -> None:
        self.act: dict[str, Callable[[], None]] = {DAEMON: lambda: os.kill(os.getpid(), signal.SIGKILL)}
        self._at = ""
        self._what = DAEMON
        self._record = -1
        self._counts: Counter[str] = Counter()
        self._reached = 0

    def set(self, *_: object) -> None:
        """By the orders' file. A signal handler: it may run between any two lines of `reach`."""
        try:
            orders = json.loads(Path(os.environ[ORDERS]).read_text())
        except (KeyError, FileNotFoundError):
            orders = {}
        if self._record >= 0:
            os.close(self._record)
        record = orders.get("record", "")
        self._record = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600) if record else -1
        self._counts, self._reached = Counter(), 0
        self._at, self._what = orders.get("at", ""), orders.get("what", DAEMON)

    def reach(self, name: str) -> None:
        self._counts[name] += 1
        self._reached += 1
        point = f"{name} {self._counts[name]}"
        if self._record >= 0:
            os.write(self._record, f"{point}\n".encode())
        if self._at in (point, str(self._reached)):
            self._at = ""
            if self._record >= 0:
                os.write(self._record, b"reached\n")
            self.act[self._what]()

    @contextmanager
    def around(self, name: str) -> Iterator[None]:
        """What raises is not done, and has no `after`."""
        self.reach(f"before {name}")
        yield
        self.reach(f"after {name}")


TRAPS = Traps()


def lay_traps() -> None:
    """Once, and before anything of the daemon is imported that takes these by name."""
    signal.signal(signal.SIGUSR1, TRAPS.set)
    _trap_stages()
    _trap_files()
    _trap_store()
    _trap_root()


def wrap_vmm(vmm: type) -> None:
    for method in ("start", "stop", "kill", "evict", "adopt"):
        wrap_method(vmm, method, _name_method(method))


def wrap_method(owner: type, method: str, name: Callable[..., str]) -> None:
    """An asynchronous one; `name` is given its arguments."""
    inner = getattr(owner, method)

    @wraps(inner)
    async def trapped(*arguments: Any, **options: Any) -> Any:
        with TRAPS.around(name(*arguments, **options)):
            return await inner(*arguments, **options)

    setattr(owner, method, trapped)


def _name_method(method: str) -> Callable[..., str]:
    return lambda *_, **__: f"vmm.{method}"


def _trap_stages() -> None:
    from banger.base import progress

    inner = progress.stage

    @contextmanager
    def stage(told: Any, name: str) -> Iterator[None]:
        TRAPS.reach(f"begin stage {name!r}")
        with inner(told, name):
            yield
        TRAPS.reach(f"end stage {name!r}")

    progress.stage = stage


def _trap_files() -> None:
    """What changes the file system by way of `base.files`, and directories."""
    from banger.base import files

    for function in ("write_atomic", "clone_sparse", "remove_tree"):
        setattr(files, function, _around_file(function, getattr(files, function)))
    atomic_file, mkdir = files.atomic_file, Path.mkdir

    @contextmanager
    def trapped_file(path: Path, **options: Any) -> Iterator[int]:
        with atomic_file(path, **options) as descriptor:
            yield descriptor
            TRAPS.reach(f"before {_shorten(path)} has its name")
        TRAPS.reach(f"after {_shorten(path)} has its name")

    def trapped_mkdir(self: Path, *arguments: Any, **options: Any) -> None:
        is_new = not self.exists()
        mkdir(self, *arguments, **options)
        if is_new:
            TRAPS.reach(f"after mkdir {_shorten(self)}")

    files.atomic_file = trapped_file
    Path.mkdir = trapped_mkdir  # type: ignore[method-assign]


def _around_file(function: str, inner: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(inner)
    def trapped(path: Path, *arguments: Any, **options: Any) -> Any:
        target = arguments[0] if function == "clone_sparse" else path
        with TRAPS.around(f"{function} {_shorten(target)}"):
            return inner(path, *arguments, **options)

    return trapped


def _shorten(path: Path) -> str:
    """Without what differs from VM to VM and from time to time."""
    name = path.name
    return f"{path.parent.name}/ID" if _ID.fullmatch(name) else _RANDOM.sub(".*", name)


def _trap_store() -> None:
    from banger.store import records, work

    inner = records.transaction

    @contextmanager
    def transaction(*arguments: Any) -> Iterator[None]:
        writer = sys._getframe(2)  # past contextlib's __enter__
        name = _name_write(writer.f_code.co_qualname, writer.f_locals)
        TRAPS.reach(f"before {name}")
        with inner(*arguments):
            yield
        TRAPS.reach(f"after {name}")

    records.transaction = work.transaction = transaction


def _name_write(method: str, values: dict[str, Any]) -> str:
    table, _, verb = method.rpartition(".")
    for local in ("vm", "operation"):
        if (record := values.get(local)) is not None:
            state = record.state.value
            return f"{verb} row of the {'VM' if local == 'vm' else local} ({state})"
    return f"{verb} in {table.removeprefix('Sqlite').lower()}"


def _trap_root() -> None:
    from banger.privileged.client import HelperClient

    wrap_method(HelperClient, "call", lambda _, request, *__: f"helper.{request.method}")
