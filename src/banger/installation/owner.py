"""The owner: the one user whose VMs they are, and doing things as that user.

What lies in the owner's directories is touched by a process that is the owner: a link they put there then leads
nowhere that they could not go themselves.
"""

import json
import os
import pwd
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from banger.client.wire import Failure

_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}")


class Owner(NamedTuple):
    name: str
    uid: int
    gid: int
    home: str

    @property
    def state(self) -> str:
        return self.home + "/.local/state/banger"

    @property
    def data(self) -> str:
        return self.home + "/.local/share/banger"

    @property
    def cache(self) -> str:
        return self.home + "/.cache/banger"

    @property
    def environment(self) -> dict[str, str]:
        return {"HOME": self.home, "USER": self.name, "LOGNAME": self.name}

    @property
    def credentials(self) -> dict[str, Any]:
        """What makes subprocess start a child as the owner; nothing where we are they already."""
        if os.geteuid() == self.uid:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": os.getgrouplist(self.name, self.gid)}


def find_owner(asked: str | None, recorded_uid: int | None, environment: Mapping[str, str]) -> Owner:
    """Whoever was asked for, else whose installation it is already, else who called sudo. Raises Failure."""
    if asked is not None:
        entry = _find_user(asked)
        if entry is None:
            raise Failure("not_found", f"there is no user {asked!r}", hint="getent passwd")
    elif (uid := recorded_uid or _sudo_uid(environment)) is not None:
        entry = _find_user(str(uid))
        if entry is None:
            raise Failure("not_found", f"there is no user with uid {uid}", hint="name one: --owner USER")
    else:
        raise Failure(
            "bad_request",
            "whose VMs are they to be? Root's are not possible",
            hint="sudo banger system install --owner USER",
        )
    return _check(entry)


def get_user(uid: int) -> Owner:
    """The user of a record. Raises Failure when they have gone."""
    entry = _find_user(str(uid))
    if entry is None:
        raise Failure("not_found", f"there is no user with uid {uid}", hint=f"getent passwd {uid}")
    return _check(entry)


def call_as(owner: Owner, work: Callable[[], Any]) -> Any:
    """The result, as JSON has it, of a function run by a child process that is the owner. Raises Failure."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        _answer(owner, work, writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as answer:
        said = answer.read()
    os.waitpid(pid, 0)
    found = json.loads(said) if said else {"error": "it ended without an answer"}
    if "error" in found:
        raise Failure("operation_failed", f"as {owner.name}: {found['error']}", outcome="unknown")
    return found["result"]


def _answer(owner: Owner, work: Callable[[], Any], writer: int) -> None:
    """The child's life. It never returns: what follows in this program is its parent's."""
    status = 1
    try:
        try:
            if os.geteuid() != owner.uid:
                os.setgroups(os.getgrouplist(owner.name, owner.gid))
                os.setgid(owner.gid)
                os.setuid(owner.uid)
            os.chdir("/")
            said = {"result": work()}
            status = 0
        except (OSError, Failure) as error:
            said = {"error": str(error)}
        with os.fdopen(writer, "wb") as answer:
            answer.write(json.dumps(said).encode())
    finally:
        os._exit(status)


def _find_user(word: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(word)
    except KeyError:
        pass
    try:
        return pwd.getpwuid(int(word))
    except (KeyError, ValueError, OverflowError):
        return None


def _sudo_uid(environment: Mapping[str, str]) -> int | None:
    """As sudo(8) tells it; 0 when root called it, which is nobody to us."""
    uid = environment.get("SUDO_UID", "")
    if uid.isascii() and uid.isdigit():
        return int(uid) or None
    name = environment.get("SUDO_USER", "")
    entry = _find_user(name) if name else None
    return entry.pw_uid or None if entry else None


def _check(entry: pwd.struct_passwd) -> Owner:
    """Their names stand in unit files and command lines: nothing there may be read as anything else."""
    if entry.pw_uid == 0:
        raise Failure("bad_request", "root cannot be the owner", hint="name an ordinary user: --owner USER")
    if _PLAIN_NAME.fullmatch(entry.pw_name) is None:
        raise Failure("bad_request", f"the user name {entry.pw_name!r} cannot stand in a unit file")
    home = entry.pw_dir.rstrip("/")
    if not home.startswith("/") or not home.isprintable() or ":" in home or "/.." in home:
        raise Failure(
            "bad_request",
            f"{entry.pw_name} has no home directory that VMs could live in ({entry.pw_dir!r})",
            hint=f"sudo usermod --home /home/{entry.pw_name} --move-home {entry.pw_name}",
        )
    return Owner(entry.pw_name, entry.pw_uid, entry.pw_gid, home)
