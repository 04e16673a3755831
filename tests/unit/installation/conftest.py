"""A host of the test's own: a root directory, an owner, a Python that runs anything, a systemctl that takes notes.

Root on it is whoever runs the tests. The owner is that user, too, or, where the tests run as root, a uid without name.
"""

import contextlib
import json
import os
import pwd
import shutil
import socket
import tempfile
import threading
from pathlib import Path

import pytest

import banger
from banger.installation import places
from banger.installation.host import Host
from banger.privileged.contract.base import Done
from banger.privileged.contract.codec import decode_request, encode_result
from banger.privileged.contract.machines import Jails, Snapshots
from banger.privileged.contract.processes import Greeting

OWNER_UID = os.getuid() or 61234
BUILD = "0123456789abcdef"
SYSTEMCTL = """\
#!/bin/sh
echo "$@" >> {log}
case "$*" in
  *is-active*) echo {state} ;;
  *restart*) exit {restart_status} ;;
esac
"""


@pytest.fixture
def root():
    """Short, for sockets, and open to other users, unlike pytest's own."""
    path = Path(tempfile.mkdtemp(prefix="bi-", dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def home(root):
    """The owner's, as their entry in passwd says: not below the host's root, for files there are the owner's."""
    path = root / "home"
    path.mkdir()
    os.chown(path, OWNER_UID, -1)
    return path


@pytest.fixture(autouse=True)
def owner(home, monkeypatch):
    entry = pwd.struct_passwd(("alice", "x", OWNER_UID, os.getgid(), "", str(home), "/bin/sh"))
    entries = {"alice": entry, "root": pwd.getpwuid(0)}

    def find(key, field):
        for each in entries.values():
            if getattr(each, field) == key:
                return each
        raise KeyError(key)

    monkeypatch.setattr(pwd, "getpwnam", lambda name: find(name, "pw_name"))
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: find(uid, "pw_uid"))
    for name in ("SUDO_UID", "SUDO_USER"):
        monkeypatch.delenv(name, raising=False)
    return entry


@pytest.fixture
def host(root):
    """Without systemd; with TUN; IPv4 forwarding off."""
    system = root / "system"
    for path, content in ((places.FORWARDING_SWITCH, "0\n"), (places.TUN, "")):
        (system / path[1:]).parent.mkdir(parents=True)
        (system / path[1:]).write_text(content)
    (system / "run").mkdir()
    programs = system / "usr/bin"
    programs.mkdir(parents=True)
    (programs / "python3").symlink_to("/usr/bin/python3")
    python = root / "python"
    python.write_text("#!/bin/sh\nexit 0\n")
    python.chmod(0o755)
    return Host(
        root=str(system), root_uid=os.getuid(), python=str(python), package=Path(banger.__file__).parent
    )


@pytest.fixture
def systemctl(host, root):
    """(the host with a fake systemctl, a function that returns what it was asked for)"""
    log = root / "systemctl.log"
    program = root / "systemctl"
    journal = root / "journalctl"
    journal.write_text('#!/bin/sh\necho "the last words of ${1#_SYSTEMD_UNIT=}"\n')

    def make(state="active", restart_status=0):
        program.write_text(SYSTEMCTL.format(log=log, state=state, restart_status=restart_status))
        for each in (program, journal):
            each.chmod(0o755)
        return host._replace(systemctl=str(program), journalctl=str(journal))

    make.calls = lambda: [
        line.removeprefix("--no-ask-password ") for line in log.read_text().splitlines() if log.exists()
    ]
    return make


class Listener:
    """Answers at a socket as a process of that uid's would."""

    def __init__(self, path: Path, kind: int, uid: int, answer) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.asked = []
        self._answer = answer
        self._kind = kind
        self._socket = socket.socket(socket.AF_UNIX, kind)
        self._socket.bind(str(path))
        former = os.geteuid()
        os.seteuid(uid)  # SO_PEERCRED is who called listen(2)
        try:
            self._socket.listen()
        finally:
            os.seteuid(former)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                with connection:
                    while message := connection.recv(65536):
                        connection.sendall(self._answer(self, message))


@pytest.fixture
def listen(host):
    """Starts the helper's and the daemon's stand-ins: listen.daemon(running=2), listen.helper()."""
    started = []

    class Listen:
        @staticmethod
        def daemon(path=places.DAEMON_SOCKET, uid=OWNER_UID, running=0, version=banger.__version__):
            def answer(listener, message):
                listener.asked.append(json.loads(message)["method"])
                result = {"running": running, "version": version, "pid": os.getpid()}
                return json.dumps({"op": "o", "result": result}).encode() + b"\n"

            started.append(Listener(Path(host.at(path)), socket.SOCK_STREAM, uid, answer))
            return started[-1]

        @staticmethod
        def helper(build=BUILD, answers=None):
            def answer(listener, message):
                request, op = decode_request(message, 0)
                listener.asked.append(request)
                greeting = Greeting(version=1, build=build, pid=os.getpid(), owner=OWNER_UID)
                known = {
                    "hello": greeting,
                    "list_jails": Jails(jails=()),
                    "list_snapshots": Snapshots(snapshots=()),
                }
                return encode_result(op, (known | (answers or {})).get(request.method, Done()))

            path = Path(host.at(places.HELPER_SOCKET))
            started.append(Listener(path, socket.SOCK_SEQPACKET, os.getuid(), answer))
            return started[-1]

    yield Listen
    for each in started:
        each.close()


@pytest.fixture
def snapshot(host):
    """Every path below the host's root with its content."""

    def take():
        found = {}
        for path in sorted(Path(host.root).rglob("*")):
            content = path.read_bytes() if path.is_file() and not path.is_symlink() else None
            found[str(path.relative_to(host.root))] = content
        return found

    return take
