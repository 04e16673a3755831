"""`system install`: first everything is checked, then the record, then the files, then what runs from them.

Idempotent: once more is an upgrade, and completes what was killed half-way. VMs are never touched.
"""

import os
import socket
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from banger.client.wire import Failure
from banger.installation import places, processes, systemd
from banger.installation.answers import ask_daemon, count_running_vms, find_pid, greet_helper, wait_answer
from banger.installation.firecracker import find_roots_firecracker
from banger.installation.host import Host, Say, require_root
from banger.installation.interpreter import find_helper_python, get_daemon_argv
from banger.installation.material import Planned, plan_files, version
from banger.installation.owner import Owner, find_owner, get_user
from banger.installation.programs import Argv, run
from banger.installation.record import Record, RecordedFile, find_record, write_record
from banger.installation.tree import Tree

_MODPROBE_TIMEOUT_S = 30.0


class Wishes(NamedTuple):
    """`start` is for hosts without systemd: helper and daemon are started in the background."""

    owner: str | None = None
    forwarding: bool = True
    start: bool = False


def install(host: Host, wishes: Wishes, say: Say) -> None:
    """Returns when the daemon answers, or, where nothing starts it, when everything is in place."""
    require_root(host, "install")
    tree = Tree(host.root, uid=host.root_uid)
    owner = _choose_owner(tree, wishes)
    python = find_helper_python(host)
    daemon = get_daemon_argv(host, owner)
    planned = plan_files(host, owner, helper_python=python, daemon=daemon, forwarding=wishes.forwarding)
    with tree.lock(places.CONFIG_DIRECTORY):
        former = find_record(tree)
        _refuse_another_owner(former, owner)
        _end_own_daemon(host, owner, say)
        record = _plan_record(host, owner, planned, former, forwarding=wishes.forwarding)
        write_record(tree, record)
        _lay_down(tree, planned, say)
        _remove_obsolete(tree, planned, record, say)
        if wishes.forwarding:
            _forward(host, say)
        _load_modules(host, say)
        _start(host, tree, owner, daemon, wishes, say)
        write_record(tree, record.finish({file.path for file in planned}))
        _tell_firecracker(host, tree, say)


def restart(host: Host, say: Say) -> None:
    """Helper and daemon anew; returns when the daemon answers. VMs are never touched."""
    require_root(host, "restart")
    tree = Tree(host.root, uid=host.root_uid)
    record = find_record(tree)
    if record is None:
        raise Failure(
            "not_found", "banger is not installed for the system", hint="sudo banger system install"
        )
    owner = get_user(record.uid)
    with tree.lock(places.CONFIG_DIRECTORY):
        if host.systemctl is not None:
            systemd.restart_units(host)
            _wait(host, owner)
        else:
            _start_processes(host, tree, owner, (host.python, "-P", "-m", "banger.daemon"))
    say(f"the daemon of {owner.name} answers")


def _choose_owner(tree: Tree, wishes: Wishes) -> Owner:
    former = find_record(tree)
    owner = find_owner(wishes.owner, former.uid if former else None, os.environ)
    _refuse_another_owner(former, owner)
    return owner


def _refuse_another_owner(former: Record | None, owner: Owner) -> None:
    if former is not None and former.uid != owner.uid:
        raise Failure(
            "conflict",
            f"banger is installed for {former.owner}, and one host has one owner",
            hint="sudo banger system uninstall, then install it anew",
        )


def _plan_record(
    host: Host, owner: Owner, planned: tuple[Planned, ...], former: Record | None, *, forwarding: bool
) -> Record:
    """With all files that will be there and those that an earlier installation may have left."""
    files = {file.path: file for file in (former.files if former else ())}
    for file in planned:
        if not (
            file.edited and file.path in files
        ):  # what it was when we laid it down tells whether it was edited
            files[file.path] = RecordedFile(path=file.path, digest=file.digest, mode=file.mode)
    before = former.forwarding_before if former else None
    if before is None and forwarding:
        with suppress(OSError):
            before = Path(host.at(places.FORWARDING_SWITCH)).read_text("ascii").strip()
    return Record(
        version=version(),
        owner=owner.name,
        uid=owner.uid,
        installed_at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        finished=False,
        files=tuple(files.values()),
        forwarding_before=before,
    )


def _end_own_daemon(host: Host, owner: Owner, say: Say) -> None:
    """The owner's daemon of until now and the system's would write to one database. Refused while it runs VMs."""
    for runtime in (f"/run/user/{owner.uid}/banger", f"/tmp/banger-{owner.uid}"):  # noqa: S108 (peer's uid verified)
        path = host.at(f"{runtime}/daemon.sock")
        pid = find_pid(path, socket.SOCK_STREAM, owner.uid)
        if pid is None:
            continue
        running = count_running_vms(path, owner.uid)
        if running:
            raise Failure(
                "conflict",
                f"{running} {'VM runs' if running == 1 else 'VMs run'} under {owner.name}'s own daemon, "
                "which the system's replaces",
                hint=f"as {owner.name}: banger daemon stop",
            )
        processes.end(pid, owner.uid)
        say(f"{owner.name}'s own daemon has been stopped; the system's takes over VMs, images and kernels")


def _lay_down(tree: Tree, planned: tuple[Planned, ...], say: Say) -> None:
    for file in planned:
        found = tree.find(file.path)
        if file.edited and found is not None:
            say(f"kept      {file.path}")
        elif found == (file.content, file.mode, tree.uid):
            say(f"unchanged {file.path}")
        else:
            tree.write(file.path, file.content, mode=file.mode)
            say(f"{'replaced ' if found else 'written  '} {file.path}")


def _remove_obsolete(tree: Tree, planned: tuple[Planned, ...], record: Record, say: Say) -> None:
    """What an earlier installation laid down and this one does not want."""
    wanted = {file.path for file in planned}
    for file in record.files:
        if file.path in places.FILES and file.path not in wanted and tree.remove(file.path):
            say(f"removed   {file.path}")


def _forward(host: Host, say: Say) -> None:
    """At once; the file does it at every boot."""
    switch = Path(host.at(places.FORWARDING_SWITCH))
    try:
        if switch.read_text("ascii").strip() == "1":
            say("this host forwards IPv4 packets (net.ipv4.ip_forward) already")
            return
        switch.write_text("1\n", "ascii")
    except OSError as error:
        say(f"{places.FORWARDING_SWITCH} cannot be changed ({error.strerror}): --nat will not work yet")
        return
    say("this host now forwards IPv4 packets (net.ipv4.ip_forward = 1), as guests with --nat need")


def _load_modules(host: Host, say: Say) -> None:
    """What the kernel does not load by itself when somebody opens a device."""
    for path, module in places.MODULES.items():
        if not Path(host.at(path)).exists() and host.modprobe is not None and host.root == "/":
            run((host.modprobe, "--quiet", module), timeout_s=_MODPROBE_TIMEOUT_S, check=False)
    if not Path(host.at(places.TUN)).exists():
        say(f"there is no {places.TUN} here: VMs run in user mode")


def _tell_firecracker(host: Host, tree: Tree, say: Say) -> None:
    """Nothing is downloaded by an installation; and where there is no KVM, there is nothing to tell."""
    if Path(host.at(places.KVM)).exists() and find_roots_firecracker(tree) is None:
        say("VMs run on QEMU until Firecracker is here: sudo banger setup firecracker")


def _start(host: Host, tree: Tree, owner: Owner, daemon: Argv, wishes: Wishes, say: Say) -> None:
    if host.systemctl is not None:
        systemd.start_units(host)
        _wait(host, owner)
        say(f"banger-root.service and banger.service run; the daemon of {owner.name} answers")
        return
    tree.give_directory(places.RUNTIME, uid=owner.uid, gid=owner.gid)
    if wishes.start:
        _start_processes(host, tree, owner, daemon)
        say(
            f"systemd does not run here: the helper and {owner.name}'s daemon run in the background, "
            "until this container ends"
        )
        return
    as_root, as_owner = processes.render_foreground_commands(owner)
    say("systemd does not run here, so nothing was started. In the foreground (or add --start):")
    say(f"  as root:  {as_root}")
    say(f"  as {owner.name}:  {as_owner}")


def _start_processes(host: Host, tree: Tree, owner: Owner, daemon: Argv) -> None:
    tree.give_directory(places.RUNTIME, uid=owner.uid, gid=owner.gid)
    processes.stop_daemon(host, owner)
    processes.stop_helper(host)
    processes.start_helper(host, tree, owner)
    processes.start_daemon(host, owner, daemon)


def _wait(host: Host, owner: Owner) -> None:
    """Until both answer. Raises Failure with what the unit said last."""

    def failed(unit: str) -> bool:
        return systemd.find_state(host, unit) == "failed"

    try:
        unit = places.HELPER_UNIT_NAME
        wait_answer(lambda: greet_helper(host.at(places.HELPER_SOCKET), host.root_uid), lambda: failed(unit))
        unit = places.DAEMON_UNIT_NAME
        wait_answer(
            lambda: ask_daemon(host.at(places.DAEMON_SOCKET), owner.uid, "daemon.ping"), lambda: failed(unit)
        )
    except Failure as failure:
        raise Failure(
            "unavailable",
            f"{unit} is {systemd.find_state(host, unit)} and does not answer: {failure.message}",
            detail=systemd.read_journal(host, unit),
            hint=f"journalctl -u {unit}; then: sudo banger system restart",
            outcome="failed",
        ) from failure
