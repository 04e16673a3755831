"""Where jails are: directories of root's alone, one for each VM, laid out as jailer wants them.

Owns `/var/lib/banger-root/jails`: `firecracker/VM/root` is a VMM's root directory, and `s` in it the directory of
sockets, which everybody may write to and nobody gets to without a descriptor of it. What is in a VM's root may be of
the VMM's making, and what is in `s` of the owner's: nothing in there is trusted, followed or executed.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from banger.privileged.contract.values import VM_PATTERN, Refusal
from banger.privileged.helper.cgroups import Cgroups, find_vm_of
from banger.privileged.helper.managed import list_names, open_below, open_trusted_directory
from banger.privileged.helper.refusals import translate
from banger.privileged.helper.removal import remove_tree
from banger.privileged.helper.vmm_programs import FIRECRACKER, find_vmm_programs

BASE = "/var/lib/banger-root/jails"
ROOT, SOCKETS = "root", "s"
UID_FIRST, UIDS = 0x70000000, 0xFFE0000  # nobody's, by systemd's table of uids (UIDS-GIDS.md)
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PRIVATE = 0o700
_TRUST_HINT = "sudo ls -ld /var/lib/banger-root /var/lib/banger-root/jails"
_FLAGS = ((os.ST_RDONLY, "ro", "rw"), (os.ST_NODEV, "nodev", "dev"), (os.ST_NOEXEC, "noexec", "exec"))


def jail_obstacle() -> tuple[str, str]:
    """Why this host has no jails, and a hint; both empty where it has. Looks, and changes nothing but that it runs
    the programs for their version."""
    try:
        if (obstacle := Cgroups().find_obstacle()) is not None:
            raise obstacle
        verify_mount(BASE)
        find_vmm_programs()
    except (Refusal, OSError) as error:
        refusal = error if isinstance(error, Refusal) else translate(error)
        return refusal.message, refusal.hint
    return "", ""


def verify_mount(path: str) -> None:
    """Raises Refusal where a jail would have no devices or could not execute its VMM. What is missing of the path will
    be made."""
    place = next(found for found in (Path(path), *Path(path).parents) if found.exists())
    flags = os.statvfs(place).f_flag
    found = [(name, wanted) for flag, name, wanted in _FLAGS if flags & flag]
    if not found:
        return
    mount = next(found for found in (place, *place.parents) if found.is_mount())
    names, wanted = (",".join(words) for words in zip(*found, strict=True))
    hint = f"sudo mount -o remount,{wanted} {mount}, or set jailer_enabled = false"
    raise Refusal("unavailable", f"{mount} is mounted {names}: no jail is possible in {path}", hint)


def uid_of(vm: str) -> int:
    """The VMM's uid, and its gid."""
    return UID_FIRST + int(vm, 16) % UIDS


def find_jail_of(pid: int, uid: int, base: str | None = None) -> str | None:
    """The VM in whose jail this process lives: in that VM's cgroup, or as its uid and with the jail as root directory.
    Nobody but root can have put it there."""
    if (vm := find_vm_of(pid)) is not None:
        return vm
    if not UID_FIRST <= uid < UID_FIRST + UIDS:
        return None
    place = JailPlace(base)
    for vm in place.list_vms():
        if uid_of(vm) == uid:
            with suppress(OSError), place.open_root(vm) as root:
                # A magic link: it leads to the directory itself, whatever its name is by now (proc(5)).
                if os.path.samestat(Path(f"/proc/{pid}/root").stat(), os.fstat(root)):
                    return vm
    return None


class JailPlace:
    """The directories below `base`."""

    def __init__(self, base: str | None = None) -> None:
        self.base = BASE if base is None else base

    def list_vms(self) -> set[str]:
        try:
            with self._open_jails() as jails:
                return {name for name in list_names(jails) if VM_PATTERN.fullmatch(name)}
        except FileNotFoundError:
            return set()

    @contextmanager
    def create(self, vm: str) -> Iterator[int]:
        """The VM's root directory, new and empty. Raises FileExistsError."""
        with self._open_jails(make=True) as jails:
            os.mkdir(vm, _PRIVATE, dir_fd=jails)
            jail = open_below(jails, (vm,), _DIRECTORY)
        try:
            os.mkdir(ROOT, _PRIVATE, dir_fd=jail)
            root = open_below(jail, (ROOT,), _DIRECTORY)
        finally:
            os.close(jail)
        try:
            yield root
        finally:
            os.close(root)

    @contextmanager
    def open_root(self, vm: str) -> Iterator[int]:
        """Raises FileNotFoundError."""
        with self._open_jails() as jails:
            root = open_below(jails, (vm, ROOT), _DIRECTORY)
        try:
            yield root
        finally:
            os.close(root)

    def open_sockets(self, vm: str) -> int:
        """Raises FileNotFoundError, also when the VMM has put something else in its place: what it makes is its own,
        and this is root's."""
        with self.open_root(vm) as root:
            try:
                sockets = open_below(root, (SOCKETS,), _DIRECTORY)
            except OSError as error:
                if error.errno in (errno.ENOTDIR, errno.ELOOP):
                    raise FileNotFoundError(f"{vm}: its directory of sockets is no directory") from error
                raise
        if os.fstat(sockets).st_uid != 0:
            os.close(sockets)
            raise FileNotFoundError(f"{vm}: its directory of sockets is not root's")
        return sockets

    def remove(self, vm: str, deadline: float) -> bool:
        """Whether nothing is left at `deadline` (of the monotonic clock). Nobody may live in it. Idempotent."""
        try:
            with self._open_jails() as jails:
                return remove_tree(jails, vm, deadline)
        except FileNotFoundError:
            return True

    @contextmanager
    def _open_jails(self, *, make: bool = False) -> Iterator[int]:
        """jailer's own directory, named after the program."""
        directory = _open_base(self.base, make=make)
        try:
            jails = _open_private(directory, FIRECRACKER, make=make)
        finally:
            os.close(directory)
        try:
            yield jails
        finally:
            os.close(jails)


def _open_base(base: str, *, make: bool) -> int:
    above, _, name = base.rpartition("/")
    outer, _, last = above.rpartition("/")
    directory = open_trusted_directory(outer, make=False, hint=_TRUST_HINT)
    try:
        for part in (last, name):
            inner = _open_private(directory, part, make=make)
            os.close(directory)
            directory = inner
    except BaseException:
        os.close(directory)
        raise
    return directory


def _open_private(directory: int, name: str, *, make: bool) -> int:
    """A directory of root's that nobody else gets into."""
    if make:
        with suppress(FileExistsError):
            os.mkdir(name, _PRIVATE, dir_fd=directory)
    inner = open_below(directory, (name,), _DIRECTORY)
    state = os.fstat(inner)
    if state.st_uid != 0:
        os.close(inner)
        raise Refusal("unauthorized", f"the jails' {name} belongs to uid {state.st_uid}", _TRUST_HINT)
    if stat.S_IMODE(state.st_mode) != _PRIVATE:
        os.fchmod(inner, _PRIVATE)
    return inner
