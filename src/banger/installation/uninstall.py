"""`system uninstall`: what the record lists goes, the record last, so that one that was killed can be repeated.

Without `purge` the owner's VMs, images and kernels stay, Firecracker, and a configuration that somebody has edited.
Refused while VMs run: nobody would look after them.
"""

from contextlib import suppress
from pathlib import Path

from banger.client.wire import Failure
from banger.installation import places, processes, purge, systemd
from banger.installation.answers import ask_helper
from banger.installation.host import Host, Say, require_root
from banger.installation.material import digest
from banger.installation.owner import Owner, get_user
from banger.installation.purge import Doomed
from banger.installation.record import Record, find_record
from banger.installation.tree import Tree
from banger.privileged.contract.machines import DetachSnapshot, ListJails, ListSnapshots, RemoveJail
from banger.privileged.contract.network import RemoveBridge
from banger.privileged.contract.values import BRIDGE_PATTERN


def list_doomed(host: Host) -> tuple[Owner, list[Doomed]]:
    """Whose, and what, a purge would remove. Raises Failure as uninstalling would; touches nothing of theirs."""
    require_root(host, "uninstall")
    owner = get_user(_get_record(Tree(host.root, uid=host.root_uid)).uid)
    purge.refuse_running_vms(host, owner)
    return owner, purge.measure(owner)


def uninstall(host: Host, say: Say, *, with_vms: bool) -> None:
    """`with_vms` removes the owner's state, data and cache, Firecracker, and an edited configuration, too."""
    require_root(host, "uninstall")
    tree = Tree(host.root, uid=host.root_uid)
    record = _get_record(tree)
    owner = _find_recorded_user(record)
    with tree.lock(places.CONFIG_DIRECTORY):
        if owner is not None:
            purge.refuse_running_vms(host, owner)
        _stop(host, owner, say)
        for path in reversed(places.FILES):
            _remove(tree, path, record, edited_too=with_vms, say=say)
        if host.systemctl is not None:
            systemd.forget_units(host)
        if owner is not None:
            purge.empty_runtime(host, owner)
        tree.remove_empty_directory(places.RUNTIME)
        tree.remove_own_directory(places.HELPER_RUNTIME)
        tree.remove_own_directory(places.HELPER_STATE)
        with suppress(OSError):
            Path(host.at(places.CGROUPS)).rmdir()
        if with_vms and owner is not None:
            purge.remove(owner)
            say(f"removed   {', '.join((owner.state, owner.data, owner.cache))}")
        if with_vms and tree.remove_own_directory(places.FIRECRACKER):
            say(f"removed   {places.FIRECRACKER}")
        _remove_rest(tree)
    _tell_forwarding(host, record, say)
    say("banger is no longer installed for the system")


def _get_record(tree: Tree) -> Record:
    """Raises `not_found`; what an installation has left that was killed while it wrote its record goes then."""
    record = find_record(tree)
    if record is None:
        _remove_rest(tree)
        raise Failure("not_found", "banger is not installed for the system", hint="banger system status")
    return record


def _remove_rest(tree: Tree) -> None:
    tree.remove(places.RECORD)
    for directory in places.OWN_DIRECTORIES:
        tree.remove_empty_directory(directory)


def _find_recorded_user(record: Record) -> Owner | None:
    """None when the owner's account has gone: then there is nobody's VM to look after."""
    try:
        return get_user(record.uid)
    except Failure as failure:
        if failure.code != "not_found":
            raise
        return None


def _stop(host: Host, owner: Owner | None, say: Say) -> None:
    """The daemon, then with the helper's last breath what it has made, then the helper."""
    if host.systemctl is not None:
        systemd.stop_unit(host, places.DAEMON_UNIT_NAME)
    elif owner is not None:
        processes.stop_daemon(host, owner)
    _remove_machines(host, say)
    _remove_bridges(host, say)
    if host.systemctl is not None:
        systemd.stop_unit(host, places.HELPER_UNIT_NAME)
    else:
        processes.stop_helper(host)


def _remove_machines(host: Host, say: Say) -> None:
    """Jails and root disks that a VM has left behind: none runs any more."""
    socket = host.at(places.HELPER_SOCKET)
    try:
        for jail in ask_helper(socket, host.root_uid, ListJails()).jails:
            ask_helper(socket, host.root_uid, RemoveJail(vm=jail.vm))
        for snapshot in ask_helper(socket, host.root_uid, ListSnapshots()).snapshots:
            ask_helper(socket, host.root_uid, DetachSnapshot(vm=snapshot.vm))
    except Failure as failure:
        if failure.code != "unavailable":  # nobody to ask: then there is nothing that outlives a boot
            say(f"a VM's jail or disk stays until the next boot: {failure.message}")


def _remove_bridges(host: Host, say: Say) -> None:
    """With their rules and names. Where no helper runs there is nobody to ask, and a reboot does it."""
    interfaces = Path(host.at(places.INTERFACES))
    names = sorted(entry.name for entry in interfaces.iterdir()) if interfaces.is_dir() else []
    for name in filter(BRIDGE_PATTERN.fullmatch, names):
        try:
            ask_helper(host.at(places.HELPER_SOCKET), host.root_uid, RemoveBridge(bridge=name))
            say(f"removed   the bridge {name}")
        except Failure as failure:
            say(f"the bridge {name} stays until the next boot: {failure.message}")


def _remove(tree: Tree, path: str, record: Record, *, edited_too: bool, say: Say) -> None:
    """Only what the record lists. The configuration only as it was laid down, unless `edited_too`."""
    recorded = record.find(path)
    if recorded is None:
        return
    found = tree.find(path)
    if (
        path == places.CONFIG
        and found is not None
        and digest(found.content) != recorded.digest
        and not edited_too
    ):
        say(f"kept      {path}, because it was changed (--purge removes it)")
        return
    if tree.remove(path):
        say(f"removed   {path}")


def _tell_forwarding(host: Host, record: Record, say: Say) -> None:
    """It stays on until the next boot: by now somebody else may rely on it."""
    with suppress(OSError):
        now = Path(host.at(places.FORWARDING_SWITCH)).read_text("ascii").strip()
        if now == "1" and record.forwarding_before == "0":
            say("this host still forwards IPv4 packets; to end that: sudo sysctl -w net.ipv4.ip_forward=0")
