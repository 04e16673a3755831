"""Managed storage for images and kernels: published whole or not at all, found by name, checked when used.

Owns a directory of
    NAME -> NAME@ID        the published build: a symbolic link, replaced by rename(2)
    NAME@ID/               its files and manifest.json
    .building@NAME@XXXX/   one being made; its maker holds the name's lock
    .lock@NAME             never removed

Invariant: whatever is half-made or no longer linked under a name belongs to nobody once that name's lock is
held (namelock.py), so it can be swept then. A build that VMs still use stays until they are gone: the caller's
`users_of` says so. Blocking, except for what builds or removes.
"""

import asyncio
import errno
import os
import secrets
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from pathlib import Path
from typing import Generic, NamedTuple, Protocol, TypeVar

import msgspec

from banger.base.files import allocated_bytes, ensure_private_directory, free_bytes, write_atomic
from banger.base.problem import Code, Outcome, Problem, not_found, unavailable
from banger.base.progress import Progress
from banger.base.units import render_size
from banger.images.namelock import hold_name, try_hold_name
from banger.images.ownership import Ownership
from banger.model.names import is_material_name, validate_material_name

MANIFEST = "manifest.json"
_BUILDING = ".building"
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class Manifest(Protocol):
    """What the shelf asks of a manifest: its names, and the size of each file."""

    @property
    def name(self) -> str: ...

    @property
    def id(self) -> str: ...

    @property
    def files(self) -> dict[str, int]: ...


M = TypeVar("M", bound=Manifest)


class Stored(NamedTuple, Generic[M]):
    """A published build. The directory stays while a VM uses it, also when the name is built again."""

    manifest: M
    directory: Path


class Wording(NamedTuple):
    """How problems speak of what is on this shelf: `image`, and the commands that list and remake one."""

    noun: str
    list_command: str
    make_command: str
    remake_command: str


class Shelf(Generic[M]):
    """One kind of thing in one directory."""

    def __init__(
        self,
        directory: Path,
        manifest_type: type[M],
        wording: Wording,
        users_of: Callable[[str], Sequence[str]],
        is_known: Callable[[str], bool],
        find_damage: Callable[[Stored[M]], str | None],
        ownership: Ownership | None = None,
    ) -> None:
        """`users_of` names the VMs that use a build, by the name of its directory (NAME@ID); `is_known`
        tells whether one of the name could be made;
        `find_damage` says what is wrong with files of the right sizes, and looks at a few bytes only;
        `ownership` removes what a build has given to other owners."""
        self.directory = directory
        self._manifest_type = manifest_type
        self._wording = wording
        self._users_of = users_of
        self._is_known = is_known
        self._find_damage = find_damage
        self._ownership = ownership or Ownership()

    def find(self, untrusted_name: str) -> Stored[M] | None:
        """The published build, checked as far as is cheap. Raises `unavailable` when it is damaged."""
        name = validate_material_name(self._wording.noun, untrusted_name)
        target = self._read_link(name)
        while target is not None:
            try:
                return self._read_build(name, target)
            except Problem:
                # A build that was replaced and swept meanwhile is not damaged.
                now = self._read_link(name)
                if now == target:
                    raise
                target = now
        return None

    def _read_link(self, name: str) -> str | None:
        try:
            target = os.readlink(self.directory / name)  # noqa: PTH115 (a text, not a path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._damaged(name, f"its name is no link: {error.strerror}") from error
        if not target.startswith(f"{name}@") or "/" in target:
            raise self._damaged(name, f"its name leads to {target}")
        return target

    def _read_build(self, name: str, target: str) -> Stored[M]:
        directory = self.directory / target
        manifest = self._read_manifest(name, directory)
        for file, size_bytes in manifest.files.items():
            self._check_size(name, directory / file, size_bytes)
        stored = Stored(manifest, directory)
        try:
            damage = self._find_damage(stored)
        except OSError as error:
            raise self._damaged(name, f"its files cannot be read: {error.strerror}") from error
        if damage is not None:
            raise self._damaged(name, damage)
        return stored

    def get(self, untrusted_name: str) -> Stored[M]:
        """As `find`, but raises `not_found`."""
        stored = self.find(untrusted_name)
        if stored is None:
            known = self._is_known(untrusted_name)
            words = self._wording
            hint = f"{words.make_command} {untrusted_name}" if known else words.list_command
            raise not_found(f"there is no {words.noun} {untrusted_name!r}", hint=hint)
        return stored

    def read_all(self) -> tuple[list[Stored[M]], list[Problem]]:
        """All published builds by name, and what is wrong with the damaged ones."""
        stored: list[Stored[M]] = []
        problems: list[Problem] = []
        names = sorted(
            entry.name for entry in self._scan() if entry.is_symlink() and is_material_name(entry.name)
        )
        for name in names:
            try:
                if found := self.find(name):
                    stored.append(found)
            except Problem as problem:
                problems.append(problem)
        return stored, problems

    def hold(self, name: str, progress: Progress) -> AbstractAsyncContextManager[None]:
        """The name's lock: building, refreshing and removing happen under it only."""
        ensure_private_directory(self.directory)
        return hold_name(
            self._lock_path(name), progress, waiting=f"wait for the other process working on {name}"
        )

    async def publish(self, name: str, build: Callable[[Path], Awaitable[M]]) -> Stored[M]:
        """Has a new directory filled and gives it the name. The caller holds the name's lock.

        Whatever goes wrong, a cancel included, leaves what was published before and nothing else.
        """
        place = self.directory / f"{_BUILDING}@{name}@{secrets.token_hex(4)}"
        place.mkdir(mode=0o700)
        try:
            with translated_full_disk(place):
                manifest = await build(place)
                await asyncio.to_thread(_settle, place, msgspec.json.format(msgspec.json.encode(manifest)))
                directory = self.directory / f"{name}@{manifest.id}"
                place.rename(directory)
                place = directory
                self._link(name, directory)
        except BaseException:
            await asyncio.shield(self._remove_quietly(place))
            raise
        await self.sweep_name(name)
        return Stored(manifest, directory)

    def rewrite_manifest(self, stored: Stored[M], manifest: M) -> Stored[M]:
        """Replaces the manifest of a published build in place. The caller holds the name's lock."""
        write_atomic(stored.directory / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest)))
        return Stored(manifest, stored.directory)

    async def delete(self, untrusted_name: str, progress: Progress) -> None:
        """Takes the name away and then the files. Raises `not_found`, or `conflict` while VMs use it.

        A damaged one goes like any other.
        """
        await asyncio.to_thread(self._require, untrusted_name)
        name = untrusted_name
        async with self.hold(name, progress):
            await asyncio.to_thread(self._require, name)
            if users := self._find_users(self.directory / name):
                raise Problem(
                    Code.CONFLICT,
                    f"{self._wording.noun} {name} is used by {', '.join(users)}",
                    hint=f"banger vm delete {' '.join(users)}",
                    outcome=Outcome.NOT_STARTED,
                )
            (self.directory / name).unlink()
            await self.sweep_name(name)

    async def sweep(self) -> None:
        """Removes what interrupted work has left under any name whose lock is free."""
        names = {parts[-2] for entry in self._scan() if len(parts := entry.name.split("@")) >= 2}
        for name in sorted(name for name in names if is_material_name(name)):
            with try_hold_name(self._lock_path(name)) as held:
                if held:
                    await self.sweep_name(name)

    async def sweep_name(self, name: str) -> None:
        """Removes what is half-made or superseded under the name. The caller holds its lock."""
        try:
            current = os.readlink(self.directory / name)  # noqa: PTH115
        except OSError:
            current = ""
        for entry in self._scan():
            building = entry.name.startswith(f"{_BUILDING}@{name}@")
            superseded = entry.name.startswith(f"{name}@") and entry.name != current
            if building or (superseded and not self._find_users(Path(entry.path))):
                await self._remove_quietly(Path(entry.path))

    async def _remove_quietly(self, path: Path) -> None:
        """Removes as far as it goes; what an orphaned tool still holds is left to the next sweep."""
        with suppress(Problem):
            if path.is_symlink():
                path.unlink(missing_ok=True)
            else:
                await self._ownership.remove_tree(path)

    def check_space(self, name: str, needed_bytes: int) -> None:
        """Raises `no_space`, with numbers, before anything is begun."""
        free = free_bytes(self.directory)
        if free < needed_bytes:
            raise Problem(
                Code.NO_SPACE,
                f"making {self._wording.noun} {name} needs {render_size(needed_bytes)}, "
                f"{self.directory} has {render_size(free)} free",
                hint=f"free some space there; {self._wording.list_command} shows what is stored",
                outcome=Outcome.NOT_STARTED,
            )

    def _damaged(self, name: str, why: str) -> Problem:
        words = self._wording
        return unavailable(f"{words.noun} {name} is damaged: {why}", hint=f"{words.remake_command} {name}")

    def _require(self, untrusted_name: str) -> None:
        """Raises `not_found` unless something is published under the name, damaged or not."""
        try:
            self.get(untrusted_name)
        except Problem as problem:
            if problem.code is not Code.UNAVAILABLE:
                raise

    def _find_users(self, build: Path) -> Sequence[str]:
        """Who uses a build, damaged or not: that is a matter of where it is, not of what is in it."""
        return self._users_of(build.resolve().name)

    def _read_manifest(self, name: str, directory: Path) -> M:
        try:
            manifest = msgspec.json.decode((directory / MANIFEST).read_bytes(), type=self._manifest_type)
        except FileNotFoundError as error:
            raise self._damaged(name, f"{MANIFEST} is missing") from error
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self._damaged(name, f"{MANIFEST}: {error}") from error
        if manifest.name != name:
            raise self._damaged(name, f"{MANIFEST} is of {manifest.name!r}")
        return manifest

    def _check_size(self, name: str, path: Path, size_bytes: int) -> None:
        try:
            size = path.stat().st_size
        except OSError as error:
            raise self._damaged(name, f"{path.name}: {error.strerror}") from error
        if size != size_bytes:
            raise self._damaged(name, f"{path.name} has {size} bytes instead of {size_bytes}")

    def _link(self, name: str, directory: Path) -> None:
        temporary = self.directory / f"{_BUILDING}@{name}@{secrets.token_hex(4)}"
        temporary.symlink_to(directory.name)
        temporary.rename(self.directory / name)
        _sync(self.directory)

    def _lock_path(self, name: str) -> Path:
        return self.directory / f".lock@{name}"

    def _scan(self) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(self.directory) as entries:
                return [entry for entry in entries if not entry.name.startswith(".lock@")]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise unavailable(
                f"{self.directory} cannot be read: {error.strerror}", hint=f"ls -ld {self.directory}"
            ) from error


@contextmanager
def translated_full_disk(place: Path) -> Iterator[None]:
    """A full disk is a Problem, from whichever write it comes."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_SPACE:
            raise
        raise Problem(
            Code.NO_SPACE, f"the disk is full at {place.parent}", hint=f"df -h {place.parent}"
        ) from error


def list_files(directory: Path) -> tuple[dict[str, int], int]:
    """Nominal size of each file, for a manifest, and what all of them take on disk."""
    files = sorted(path for path in directory.iterdir() if path.is_file() and path.name != MANIFEST)
    return {path.name: path.stat().st_size for path in files}, sum(allocated_bytes(path) for path in files)


def _settle(directory: Path, manifest: bytes) -> None:
    """Has all files on disk before the manifest, and that before any name."""
    for path in directory.iterdir():
        _sync(path)
    write_atomic(directory / MANIFEST, manifest)
    _sync(directory / MANIFEST)
    _sync(directory)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
