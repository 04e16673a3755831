"""What one guest is told at boot: a second archive behind the initramfs that all guests share. Pure.

Owns the text of `/banger/config` and the layout of `/banger/files` (guest-agent/protocol.md, "Boot
configuration"). Values are checked here, because a newline in one would add keys of its own. The caller
writes `base initramfs + this archive`; the base must end on a multiple of 512 bytes.
"""

import ipaddress
import re
import stat
from collections.abc import Iterator

import msgspec

from banger.base.cpio import CpioEntry, render_archive
from banger.base.problem import bad_request

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.IGNORECASE)
_DISK = re.compile(r"[A-Za-z0-9._-]{1,20}|/dev/vd[a-z]")  # virtio-blk keeps 20 bytes of a serial
_CHANNEL = re.compile(r"virtio-serial:[A-Za-z0-9._-]+|vsock:[0-9]{1,10}")
_PARENT_MODE = stat.S_IFDIR | 0o755


class GuestFile(msgspec.Struct, frozen=True, kw_only=True):
    """A regular file that is put into the guest at boot. `mode` is permissions only."""

    path: str
    content: bytes
    mode: int = 0o644
    uid: int = 0
    gid: int = 0


class BootConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Disks by serial, or by device (`/dev/vda`) where the VMM has no serials; `address` as `A.B.C.D/N`; `channel`
    tried in order; `init` is auto, none or a path."""

    hostname: str
    root: str
    work: str | None = None
    modules: str | None = None
    address: str | None = None
    gateway: str | None = None
    dns: tuple[str, ...] = ()
    channel: tuple[str, ...] = ("virtio-serial:banger.agent",)
    init: str = "auto"
    grow: bool = True
    files: tuple[GuestFile, ...] = ()


def render_boot_archive(config: BootConfig) -> bytes:
    """The archive, padded to 512 bytes. Raises `bad_request` for a value that the format cannot carry."""
    return render_archive(_entries(config))


def render_boot_config(config: BootConfig) -> str:
    """The text of `/banger/config`."""
    validate_boot_config(config)
    pairs: list[tuple[str, str | None]] = [
        ("hostname", config.hostname),
        ("root", config.root),
        ("work", config.work),
        ("modules", config.modules),
        ("address", config.address),
        ("gateway", config.gateway),
        *(("dns", server) for server in config.dns),
        *(("channel", channel) for channel in config.channel),
        ("init", config.init),
        ("grow", "yes" if config.grow else None),
    ]
    return "".join(f"{key}={value}\n" for key, value in pairs if value is not None)


def validate_boot_config(config: BootConfig) -> None:
    _need(_LABEL, config.hostname, "a host name")
    for disk in (config.root, config.work, config.modules):
        if disk is not None:
            _need(_DISK, disk, "a disk's serial or device")
    for channel in config.channel:
        _need(_CHANNEL, channel, "an agent channel")
    if config.address is not None:
        if "/" not in config.address:
            raise bad_request(f"{config.address!r} has no prefix length", hint="write 10.0.0.2/24")
        _need_ipv4(config.address, "an address with a prefix length")
    for server in (config.gateway, *config.dns):
        if server is not None and "/" in server:
            raise bad_request(f"{server!r} is not an IPv4 address")
        if server is not None:
            _need_ipv4(server, "an IPv4 address")
    if config.init not in ("auto", "none"):
        _path_parts(config.init)
    for file in config.files:
        _path_parts(file.path)
        if stat.S_IMODE(file.mode) != file.mode:
            raise bad_request(f"{file.path} has mode {file.mode:o}, which is not permissions only")


def _entries(config: BootConfig) -> Iterator[CpioEntry]:
    """Parents before what they hold. A file named twice is a mistake of the caller's, told here."""
    yield CpioEntry("banger", _PARENT_MODE)
    text = render_boot_config(config).encode("ascii")
    yield CpioEntry("banger/config", stat.S_IFREG | 0o600, content=text)
    yield CpioEntry("banger/files", _PARENT_MODE)
    directories: set[str] = set()
    names: set[str] = set()
    for file in config.files:
        parts = _path_parts(file.path)
        for depth in range(1, len(parts)):
            parent = "/".join(parts[:depth])
            if parent not in directories:
                directories.add(parent)
                yield CpioEntry(f"banger/files/{parent}", _PARENT_MODE)
        name = "/".join(parts)
        if name in names:
            raise bad_request(f"{file.path} is to be put into the guest twice")
        names.add(name)
        mode = stat.S_IFREG | file.mode
        yield CpioEntry(f"banger/files/{name}", mode, file.uid, file.gid, file.content)
    if clash := names & directories:
        raise bad_request(f"/{min(clash)} is to be put into the guest as a file and as a directory")


def _path_parts(path: str) -> list[str]:
    parts = path.split("/")[1:]
    if not path.startswith("/") or any(part in ("", ".", "..") for part in parts):
        raise bad_request(f"{path!r} is not an absolute path without empty, . and .. parts")
    if any(ord(character) < 32 or ord(character) == 127 for character in path):
        raise bad_request(f"{path!r} contains a control character")
    return parts


def _need(pattern: re.Pattern[str], value: str, what: str) -> None:
    if pattern.fullmatch(value) is None:
        raise bad_request(f"{value!r} is not {what}")


def _need_ipv4(value: str, what: str) -> None:
    """Checks the characters as well: the text goes into the configuration as it is."""
    try:
        ipaddress.IPv4Interface(value)
    except ValueError as error:
        raise bad_request(f"{value!r} is not {what}") from error
    if re.fullmatch(r"[0-9./]+", value) is None:
        raise bad_request(f"{value!r} is not {what}")
