"""Which Firecracker and jailer root runs: those that root's configuration names, else the newest that `banger setup
firecracker` has put in place.

Owns nothing but remembered versions. Refuses a program that anybody else could change or replace: every component of
its path must be root's and closed to others, and no symbolic link.
"""

import os
import re
import tomllib
from pathlib import PurePosixPath
from typing import NamedTuple

from banger.privileged.contract.values import Refusal
from banger.privileged.helper.managed import (
    Root,
    list_names,
    open_trusted_directory,
    open_trusted_program,
    read_trusted,
)
from banger.privileged.helper.programs import run_program
from banger.privileged.helper.refusals import firecracker_missing, firecracker_unfit

MANAGED = "/usr/local/lib/banger/firecracker"
FIRECRACKER, JAILER = "firecracker", "jailer"
OLDEST, TOO_NEW = (1, 10), (2, 0)
_PLACE = ("banger", "config.toml")
_CONFIGURATION = "/etc/banger/config.toml"
_DIRECTORY = re.compile(r"(\d{1,4})\.(\d{1,4})\.(\d{1,4})")
_VERSION = re.compile(rb"v((\d{1,4})\.(\d{1,4})\.\d{1,4})")
_TRIAL_S = 5.0

_Stamp = tuple[str, int, int, int, int]
_versions: dict[_Stamp, str] = {}  # of files that have not changed since


class VmmPrograms(NamedTuple):
    firecracker: str
    jailer: str
    version: str


def find_vmm_programs() -> VmmPrograms:
    """Raises Refusal when there are none, or none that root may run."""
    firecracker, jailer = _choose(read_trusted(Root.CONFIGURATION, _PLACE))
    version = _verify(firecracker)
    if (other := _verify(jailer)) != version:
        raise firecracker_unfit(
            f"{jailer} is of {other} and {firecracker} of {version}: they belong together"
        )
    return VmmPrograms(firecracker, jailer, version)


def parse_configured(configuration: str) -> tuple[str, str]:
    """Firecracker's and jailer's paths, empty where none is configured. Pure. Raises Refusal."""
    try:
        values = tomllib.loads(configuration)
    except tomllib.TOMLDecodeError as error:
        raise Refusal("unavailable", f"{_CONFIGURATION}: {error}", f"sudoedit {_CONFIGURATION}") from error
    paths = values.get("firecracker_bin", ""), values.get("jailer_bin", "")
    for key, path in zip(("firecracker_bin", "jailer_bin"), paths, strict=True):
        if path != "" and not _is_plain(path):
            what = f"{_CONFIGURATION}: {key} = {path!r} is not an absolute, plain path"
            raise Refusal("unavailable", what, f"sudoedit {_CONFIGURATION}")
    return paths


def _is_plain(path: object) -> bool:
    if not isinstance(path, str):
        return False
    pure = PurePosixPath(path)
    return pure.is_absolute() and str(pure) == path and ".." not in pure.parts and "\0" not in path


def _choose(configuration: str) -> tuple[str, str]:
    """A jailer is looked for beside its Firecracker."""
    firecracker, jailer = parse_configured(configuration)
    firecracker = firecracker or f"{_find_managed()}/{FIRECRACKER}"
    parent, _, name = firecracker.rpartition("/")
    if name != FIRECRACKER:  # jailer would name the directory of jails after it
        raise firecracker_unfit(
            f"{firecracker} is called {name}: in a jail it has to be called {FIRECRACKER}"
        )
    return firecracker, jailer or f"{parent}/{JAILER}"


def _find_managed() -> str:
    """The directory of the newest version that we can work with."""
    try:
        directory = open_trusted_directory(MANAGED, make=False, hint=f"ls -ld {MANAGED}")
    except FileNotFoundError:
        raise firecracker_missing() from None
    try:
        names = list_names(directory)
    finally:
        os.close(directory)
    found = [tuple(map(int, match.groups())) for name in names if (match := _DIRECTORY.fullmatch(name))]
    fitting = [version for version in found if OLDEST <= version[:2] < TOO_NEW]
    if not fitting:
        raise firecracker_missing()
    return f"{MANAGED}/{'.'.join(map(str, max(fitting)))}"


def _verify(path: str) -> str:
    """The version of a program that root may run. Its file cannot change between this and its start: only root could
    change it."""
    try:
        program = open_trusted_program(path)
    except FileNotFoundError:
        raise firecracker_missing(path) from None
    try:
        state = os.fstat(program)
    finally:
        os.close(program)
    stamp = (path, state.st_dev, state.st_ino, state.st_mtime_ns, state.st_ctime_ns)
    if stamp not in _versions:
        _versions[stamp] = _read_version(path)
    return _versions[stamp]


def _read_version(path: str) -> str:
    try:
        match = _VERSION.search(run_program((path, "--version"), deadline_s=_TRIAL_S).stdout)
    except OSError as error:
        raise firecracker_unfit(f"{path} does not run: {error.strerror}") from error
    if match is None:
        raise firecracker_unfit(f"{path} names no version")
    version = match[1].decode()
    if not OLDEST <= (int(match[2]), int(match[3])) < TOO_NEW:
        wanted = f"{OLDEST[0]}.{OLDEST[1]} or newer, and before {TOO_NEW[0]}.{TOO_NEW[1]}"
        raise firecracker_unfit(f"{path} is of {version}, and {wanted} is wanted")
    return version
