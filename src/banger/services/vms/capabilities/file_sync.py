"""Files of the owner's that are copied into every guest at its start: `[[file_sync]]` of the configuration."""

import asyncio
import errno
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, TypeVar

import msgspec

from banger.api.system import Finding
from banger.base.problem import Problem, conflict
from banger.base.units import MIB, render_size
from banger.guest.bootconfig import BootConfig, GuestFile
from banger.model.config import Config
from banger.model.config import FileSync as Entry
from banger.model.vm import VmRecord
from banger.services.vms.capabilities.contract import Capability, Check, GuestBoot

_MOST_BYTES = 8 * MIB  # of one file: they travel in the guest's initramfs, which is in memory
_GUEST_HOME = "/root"

T = TypeVar("T")


class FileSync(Capability):
    """A file that is missing, cannot be read or is no regular file is left out, and the VM says so; one that is too
    large refuses the start, because whoever named it would miss it."""

    name = "file sync"

    def __init__(self, config: Config) -> None:
        self._entries = config.file_sync

    @classmethod
    def checks(cls, config: Config) -> Mapping[str, Check]:
        return {cls.name: cls(config)._check} if config.file_sync else {}

    async def _check(self) -> Finding:
        """Every start would say the same."""
        try:
            warnings = await asyncio.to_thread(lambda: tuple(self._each(lambda *_: None, lambda text: text)))
        except Problem as problem:
            return Finding(check=self.name, verdict="fail", text=problem.brief)
        if warnings:
            return Finding(check=self.name, verdict="warn", text="; ".join(warnings))
        return Finding(check=self.name, verdict="pass", text=f"{len(self._entries)} files can be copied")

    def preflight(self, vm: VmRecord) -> Sequence[str]:
        return tuple(self._each(lambda entry, content: None, lambda warning: warning))

    def guest(self, boot: GuestBoot, config: BootConfig) -> BootConfig:
        files = tuple(self._each(_render, lambda warning: None))
        return msgspec.structs.replace(config, files=(*config.files, *files))

    def _each(self, take: Callable[[Entry, bytes], T | None], warn: Callable[[str], T | None]) -> Iterator[T]:
        for entry in self._entries:
            source = Path(entry.host).expanduser()
            try:
                with _open_regular(source) as file:
                    content = file.read(_MOST_BYTES + 1)
            except OSError as error:
                found = warn(f"{entry.host} is not copied to {entry.guest}: {error.strerror}")
            else:
                _refuse_large(entry, content)
                found = take(entry, content)
            if found is not None:
                yield found


def _open_regular(source: Path) -> BinaryIO:
    """Without waiting: open(2) of a FIFO waits for a writer, for ever if there is none."""
    descriptor = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a regular file")
    return os.fdopen(descriptor, "rb")


def _render(entry: Entry, content: bytes) -> GuestFile:
    path = _GUEST_HOME + entry.guest[1:] if entry.guest.startswith("~/") else entry.guest
    return GuestFile(path=path, content=content, mode=entry.mode_bits)


def _refuse_large(entry: Entry, content: bytes) -> None:
    if len(content) > _MOST_BYTES:
        raise conflict(
            f"{entry.host} is larger than {render_size(_MOST_BYTES)}, the most that file_sync copies",
            hint="take its [[file_sync]] entry out of config.toml, and copy it by banger vm exec",
        )
