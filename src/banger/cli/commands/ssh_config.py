"""`ssh-config`, and the two commands that OpenSSH runs because of it."""

from __future__ import annotations

import os
import sys

from banger.cli.output import note
from banger.cli.values import refuse
from banger.client import places
from banger.client.blocking import open_connection
from banger.client.wire import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from banger.cli.parser import Arguments
    from banger.client.rewriting import OwnFile

_CONNECT_S = 15.0


def configure(arguments: Arguments) -> int:
    """Prints the configuration, or puts it where ssh reads it, or takes it away from there."""
    if arguments.has("install") and arguments.has("uninstall"):
        raise refuse("--install and --uninstall contradict each other", hint="give one")
    chosen = next((word for word in ("install", "uninstall") if arguments.has(word)), None)
    if chosen and arguments.references:
        raise refuse(
            f"--{chosen} is for all VMs, and {arguments.references[0]!r} names one",
            hint=f"banger ssh-config --{chosen}",
        )
    if arguments.get("file") is not None and not chosen:
        raise refuse(
            "--file says what to change, and nothing is changed", hint="add --install or --uninstall"
        )
    if chosen == "install":
        return _install(_find_file(arguments))
    if chosen == "uninstall":
        return _uninstall(_find_file(arguments))
    text = _render_named(arguments.references) if arguments.references else _render_all()
    sys.stdout.write(text)
    return 0


def proxy(arguments: Arguments) -> int:
    """Gives ssh a connection to a VM's sshd over the socket that is our stdout (ssh_config(5), ProxyUseFdpass)."""
    import socket
    from array import array

    try:
        theirs = socket.socket(fileno=os.dup(1))
        passes = theirs.family == socket.AF_UNIX
    except OSError:
        passes = False
    if not passes:
        raise refuse("this command is for ssh to run", hint="banger ssh-config --install, then: ssh NAME.vm")
    with theirs:
        target = _find_target(arguments.get("host"))
        address = (target["host"], target["port"])
        try:
            with socket.create_connection(address, timeout=_CONNECT_S) as connected:
                connected.settimeout(None)
                descriptors = array("i", [connected.fileno()])
                theirs.sendmsg([b"\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
        except OSError as error:
            raise Failure(
                "unavailable",
                f"sshd of {arguments.get('host')} at {address[0]}:{address[1]} cannot be reached: {error}",
                hint="banger doctor",
            ) from error
    return 0


def known_host(arguments: Arguments) -> int:
    """The line of known_hosts for a VM: its key is the one that was made for it, under the name that ssh asks for."""
    host = arguments.get("host")
    target = _find_target(host)
    try:
        with open(target["known_hosts_file"], encoding="ascii") as file:
            words = file.read().split()
    except OSError as error:
        raise Failure(
            "unavailable",
            f"the host key of {host} cannot be read: {error.strerror}",
            hint="banger vm restart " + _name_of(host),
        ) from error
    if len(words) >= 3:
        print(host, *words[1:3])
    return 0


def _find_target(host: str) -> dict[str, Any]:
    with open_connection() as connection:
        return connection.call("vm.ssh", {"vm": _name_of(host)})


def _name_of(host: str) -> str:
    return host.rpartition(".")[0] or host


def _render_all() -> str:
    from banger.client.ssh_config import render_block

    with open_connection() as connection:
        settings = connection.call("ssh.settings")
    return render_block(_find_own_program(), settings["identity_file"], settings["zone"])


def _render_named(references: list[str]) -> str:
    from banger.client.ssh_config import render_target

    texts = []
    with open_connection() as connection:
        zone = connection.call("ssh.settings")["zone"]
        for reference in references:
            name = connection.call("vm.show", {"vm": reference})["vm"]["name"]
            texts.append(render_target(name, zone, connection.call("vm.ssh", {"vm": reference})))
    return "\n".join(texts)


def _install(path: str) -> int:
    """Our file first: what is included is there before it is."""
    from banger.client.rewriting import OwnFile
    from banger.client.ssh_config import add_fenced, render_include

    own, config = _open_own(), OwnFile(path)
    after = add_fenced(config.content, render_include(own.path))
    _write(own, _render_all().encode())
    changed = _write(config, after)
    note(f"{config.path} {'includes' if changed else 'already includes'} {own.path}: ssh NAME.vm")
    return 0


def _uninstall(path: str) -> int:
    from banger.client.rewriting import OwnFile
    from banger.client.ssh_config import remove_fenced

    own, config = _open_own(), OwnFile(path)
    content = config.content
    rest = content if content is None else remove_fenced(content)
    changed = rest != content
    if rest is not None:
        _write(config, rest)
    elif content is not None:
        config.remove()
    if own.content is not None:
        own.remove()
    note(
        f"{config.path} {'does not include' if changed else 'did not include'} banger's VMs"
        + " any more" * changed
    )
    return 0


def _write(file: OwnFile, content: bytes) -> bool:
    """Whether anything was to be written."""
    if file.content == content:
        return False
    file.replace(content)
    return True


def _open_own() -> OwnFile:
    from banger.client.rewriting import OwnFile

    return OwnFile(places.config_directory() + "/ssh_config")


def _find_file(arguments: Arguments) -> str:
    """ssh looks below the home directory that the system has recorded, whatever HOME says (ssh_config(5), FILES)."""
    if (named := arguments.get("file")) is not None:
        return os.path.abspath(str(named))
    import pwd

    try:
        home = pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        home = os.environ.get("HOME", "")
    path = home + "/.ssh/config"
    ours = os.environ.get("HOME") or home
    if os.path.realpath(ours) != os.path.realpath(home):
        raise Failure(
            "conflict",
            f"ssh reads {path}, and HOME is {ours}",
            hint=f"banger ssh-config --file {path}, with --install or --uninstall, if that is the one",
        )
    return path


def _find_own_program() -> tuple[str, ...]:
    """How ssh is to execute us: by the name that the user's installation has given us, which outlives an upgrade, even
    if it is a link to this version's."""
    program = os.path.abspath(sys.argv[0])
    if os.path.basename(program) == "banger" and os.access(program, os.X_OK):
        return (program,)
    return (sys.executable, "-P", "-m", "banger.cli")
