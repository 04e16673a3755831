"""Who commits in a guest: the owner's name and address as git on the host has them, for all users of the guest.

Read by git itself, which alone knows all places and includes. It says where it has read, too, and is asked again when
one of these files has changed, so that an ordinary start begins no process.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from banger.base.problem import Problem
from banger.base.process import find_tool, run_blocking
from banger.guest.bootconfig import BootConfig, GuestFile
from banger.model.config import Config
from banger.services.vms.capabilities.contract import Capability, GuestBoot

_GUEST_PATH = "/etc/gitconfig"
_PLACES = ("XDG_CONFIG_HOME", "GIT_CONFIG_GLOBAL")  # git-config(1), Files
_KEYS = ("user.name", "user.email")
_TIMEOUT_S = 5.0


class GitIdentity(Capability):
    name = "git identity"

    def __init__(self, config: Config) -> None:
        self._enabled = config.git_identity
        self._read_from: Mapping[Path, int] | None = None
        self._content = b""

    def guest(self, boot: GuestBoot, config: BootConfig) -> BootConfig:
        content = self._read() if self._enabled else b""
        if not content:
            return config
        file = GuestFile(path=_GUEST_PATH, content=content)
        return msgspec.structs.replace(config, files=(*config.files, file))

    def _read(self) -> bytes:
        if self._read_from is None or any(_stamp(path) != at for path, at in self._read_from.items()):
            stamps = {path: _stamp(path) for path in _find_places()}
            files, self._content = _ask_git() if any(stamps.values()) else ((), b"")
            self._read_from = stamps | {path: _stamp(path) for path in files}
        return self._content


def _find_places() -> tuple[Path, ...]:
    """Where a file may appear that was not there before."""
    environment = os.environ
    places = [
        "/etc/gitconfig",
        "~/.gitconfig",
        f"{environment.get('XDG_CONFIG_HOME') or '~/.config'}/git/config",
    ]
    if "GIT_CONFIG_GLOBAL" in environment:
        places.append(environment["GIT_CONFIG_GLOBAL"])
    return tuple(Path(place).expanduser() for place in places)


def _stamp(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _ask_git() -> tuple[tuple[Path, ...], bytes]:
    """The files that it has read, and the identity as git itself would write it: empty where git is not installed or
    knows none. All of its configuration: with --global, git would leave out $XDG_CONFIG_HOME where there is a
    ~/.gitconfig."""
    git = find_tool("git")
    if git is None:
        return (), b""
    argv = (str(git), "config", "--includes", "--null", "--show-origin", "--list")
    places = {name: os.environ[name] for name in _PLACES if name in os.environ}
    try:
        done = run_blocking(argv, timeout_s=_TIMEOUT_S, cwd=Path("/"), extra_env=places)
    except Problem:
        return (), b""
    words = done.stdout.decode("utf-8", "replace").split("\0")
    origins, entries = words[0::2], words[1::2]
    files = tuple({Path(origin.removeprefix("file:")) for origin in origins if origin.startswith("file:")})
    values = dict(
        entry.split("\n", 1) for entry in entries if entry.partition("\n")[0] in _KEYS and "\n" in entry
    )
    lines = [f"\t{key.removeprefix('user.')} = {_quote(value)}\n" for key, value in values.items()]
    return files, ("[user]\n" + "".join(lines)).encode() if lines else b""


def _quote(value: str) -> str:
    """git-config(1), Syntax."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return f'"{escaped}"'
