"""`system status`: what is installed, whether it is whole, and whether it runs. Reads only; needs no root."""

from pathlib import Path
from typing import NamedTuple

from banger.client.wire import Failure
from banger.installation import places, systemd
from banger.installation.answers import ask_daemon, greet_helper
from banger.installation.helper_archive import digest_build, render_archive
from banger.installation.host import Host
from banger.installation.interpreter import find_helper_python
from banger.installation.material import digest, version
from banger.installation.record import Record, RecordedFile, find_record
from banger.installation.tree import Tree

_UPGRADE = "sudo banger system install"


class FileState(NamedTuple):
    """`state` is intact, changed, edited (a configuration that may be), missing, or why it cannot be trusted."""

    path: str
    state: str


class HelperState(NamedTuple):
    """`build` is that of the process, `installed` of the file, `ours` of this banger's code."""

    pid: int | None
    build: str | None
    installed: str | None
    ours: str | None
    problem: str | None


class DaemonState(NamedTuple):
    pid: int | None
    version: str | None
    running: int | None
    problem: str | None


class Status(NamedTuple):
    """`problems` is what is wrong, each with the command that mends it; empty when all is well."""

    version: str
    owner: str
    uid: int
    installed_at: str
    finished: bool
    files: list[FileState]
    helper: HelperState
    daemon: DaemonState
    units: dict[str, str] | None
    forwarding: bool | None
    problems: list[tuple[str, str]]


def find_status(host: Host) -> Status | None:
    """None when nothing is installed."""
    tree = Tree(host.root, uid=host.root_uid)
    record = find_record(tree)
    if record is None:
        return None
    units = None
    if host.systemctl is not None:
        units = {unit: systemd.find_state(host, unit) for unit in systemd.UNITS}
    status = Status(
        version=record.version,
        owner=record.owner,
        uid=record.uid,
        installed_at=record.installed_at,
        finished=record.finished,
        files=[FileState(file.path, _inspect(tree, file)) for file in record.files],
        helper=_find_helper(host, tree),
        daemon=_find_daemon(host, record),
        units=units,
        forwarding=_find_forwarding(host),
        problems=[],
    )
    return status._replace(problems=_judge(status))


def _inspect(tree: Tree, file: RecordedFile) -> str:
    try:
        found = tree.find(file.path)
    except Failure as failure:
        return failure.message
    if found is None:
        return "missing"
    if found.uid not in (0, tree.uid) or found.mode & 0o022:
        return f"others than root may change it (uid {found.uid}, mode {found.mode:04o})"
    if digest(found.content) == file.digest and found.mode == file.mode:
        return "intact"
    return "edited" if file.path == places.CONFIG else "changed"


def _find_helper(host: Host, tree: Tree) -> HelperState:
    try:
        found = tree.find(places.HELPER)
        installed = None if found is None else digest_build(found.content)
    except Failure:
        installed = None
    try:
        ours = digest_build(render_archive(host.package, find_helper_python(host)))
    except Failure:
        ours = None
    try:
        greeting = greet_helper(host.at(places.HELPER_SOCKET), host.root_uid)
    except Failure as failure:
        return HelperState(None, None, installed, ours, failure.message)
    return HelperState(greeting.pid, greeting.build, installed, ours, None)


def _find_daemon(host: Host, record: Record) -> DaemonState:
    try:
        state = ask_daemon(host.at(places.DAEMON_SOCKET), record.uid, "daemon.status")
    except Failure as failure:
        return DaemonState(None, None, None, failure.message)
    return DaemonState(state.get("pid"), state.get("version"), state.get("running"), None)


def _find_forwarding(host: Host) -> bool | None:
    try:
        return Path(host.at(places.FORWARDING_SWITCH)).read_text("ascii").strip() == "1"
    except OSError:
        return None


def _judge(status: Status) -> list[tuple[str, str]]:
    problems = []
    if not status.finished:
        problems.append(("the installation was not finished", _UPGRADE))
    for file in status.files:
        if file.state not in ("intact", "edited"):
            problems.append((f"{file.path}: {file.state}", _UPGRADE))
    helper, daemon = status.helper, status.daemon
    if helper.problem is not None:
        problems.append((helper.problem, "sudo banger system restart"))
    elif helper.build != helper.installed and helper.installed is not None:
        problems.append(
            ("the helper that runs is not the one that is installed", "sudo banger system restart")
        )
    if helper.installed is not None and helper.ours is not None and helper.ours != helper.installed:
        problems.append(("the installed helper is of another version than this banger", _UPGRADE))
    if daemon.problem is not None:
        problems.append((daemon.problem, "sudo banger system restart"))
    elif daemon.version != version():
        problems.append((f"the daemon is of version {daemon.version}, this banger of {version()}", _UPGRADE))
    if status.units is not None:
        problems += [
            (f"{unit} is {state}", f"journalctl -u {unit}")
            for unit, state in status.units.items()
            if state != "active"
        ]
    if status.forwarding is False and any(file.path == places.FORWARDING_FILE for file in status.files):
        problems.append(("this host does not forward IPv4 packets", "sudo sysctl -w net.ipv4.ip_forward=1"))
    return problems
