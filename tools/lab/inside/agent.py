"""Runs in the lab as root: commands and files for who holds the other end of the virtio-serial port.

A frame is one line of JSON and the bodies that it announces. Requests carry an id and may overlap; a reply carries
the id of its request. Output goes through files, so that a daemon which a command leaves behind, and which inherits
its stdout, holds no reply up. Standard library only; Python 3.11.
"""

import grp
import json
import os
import pwd
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import IO, Any

Request = dict[str, Any]
Reply = tuple[dict[str, Any], list[bytes]]

PORT = "/dev/virtio-ports/lab"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NO_HOST_S = 0.05

running: dict[int, "subprocess.Popen[bytes]"] = {}
begun: dict[
    int, threading.Event
] = {}  # of every command that has not ended, from the moment it was asked for
writing = threading.Lock()


def render_environment(user: pwd.struct_passwd, extra: dict[str, str]) -> dict[str, str]:
    own = {
        "PATH": PATH,
        "LANG": "C.UTF-8",
        "HOME": user.pw_dir,
        "USER": user.pw_name,
        "LOGNAME": user.pw_name,
    }
    return own | {"SHELL": user.pw_shell} | extra


def run(request: Request, body: bytes) -> Reply:
    """Status is negative for a signal, as subprocess has it; `late` says that the deadline ended it."""
    user = pwd.getpwnam(request.get("user") or "root")
    groups = [group.gr_gid for group in grp.getgrall() if user.pw_name in group.gr_mem]
    late = False
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        given.write(body)
        given.seek(0)
        process = subprocess.Popen(
            request["argv"],
            stdin=given,
            stdout=out,
            stderr=err,
            cwd=request.get("cwd") or user.pw_dir,
            env=render_environment(user, request.get("env") or {}),
            user=user.pw_uid,
            group=user.pw_gid,
            extra_groups=groups,
            umask=0o022,
            start_new_session=True,
        )
        running[request["id"]] = process
        begun[request["id"]].set()
        try:
            status = process.wait(request.get("timeout_s"))
        except subprocess.TimeoutExpired:
            late = True
            os.killpg(process.pid, signal.SIGKILL)
            status = process.wait()
        finally:
            del running[request["id"]]
        bodies = []
        for file in (out, err):
            file.seek(0)
            bodies.append(file.read())
    return {"status": status, "late": late}, bodies


def put(request: Request, body: bytes) -> Reply:
    user = pwd.getpwnam(request.get("user") or "root")
    descriptor = os.open(request["path"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(body)
        os.fchown(file.fileno(), user.pw_uid, user.pw_gid)
        os.fchmod(file.fileno(), request.get("mode", 0o644))
    return {}, []


def get(request: Request, _: bytes) -> Reply:
    return {}, [Path(request["path"]).read_bytes()]


def send_signal(request: Request, _: bytes) -> Reply:
    """To the whole session of a command that has not ended; to one that was just asked for, when it has begun."""
    if (event := begun.get(request["target"])) is not None:
        event.wait()
    process = running.get(request["target"])
    if process is not None:
        os.killpg(process.pid, request["number"])
    return {"found": process is not None}, []


def set_clock(request: Request, _: bytes) -> Reply:
    """A restored lab thinks that it is still the moment at which it was saved."""
    time.clock_settime(time.CLOCK_REALTIME, request["seconds"])
    return {}, []


OPERATIONS = {"run": run, "put": put, "get": get, "signal": send_signal, "clock": set_clock}


def answer(port: int, request: Request, body: bytes) -> None:
    began = time.monotonic()
    try:
        reply, bodies = OPERATIONS[request["op"]](request, body)
    except Exception as error:  # noqa: BLE001 (whatever it is, the test outside wants to read it)
        reply, bodies = {"error": f"{type(error).__name__}: {error}"}, []
    if (event := begun.pop(request["id"], None)) is not None:
        event.set()  # also when it could not begin
    reply |= {"id": request["id"], "seconds": round(time.monotonic() - began, 4)}
    send(port, reply, bodies)


def send(port: int, reply: dict[str, Any], bodies: list[bytes]) -> None:
    reply["bodies"] = [len(body) for body in bodies]
    frame = memoryview(json.dumps(reply).encode() + b"\n" + b"".join(bodies))
    with writing:
        while frame:
            frame = frame[os.write(port, frame) :]


def serve(port: int, stream: IO[bytes]) -> None:
    """Until the host hangs up. `hello` is answered at once and in order: what came before it was for nobody."""
    while line := stream.readline():
        request = json.loads(line)
        body = stream.read(request.get("body", 0))
        if request["op"] == "hello":
            send(port, {"id": request["id"], "hello": request["nonce"]}, [])
            continue
        if request["op"] == "run":
            begun[request["id"]] = threading.Event()
        threading.Thread(target=answer, args=(port, request, body), daemon=True).start()


def main() -> None:
    port = os.open(PORT, os.O_RDWR | os.O_CLOEXEC)
    while True:
        with os.fdopen(os.dup(port), "rb") as stream:
            try:
                serve(port, stream)
            except ValueError as error:
                print(f"no frame: {error}", file=sys.stderr, flush=True)
        time.sleep(NO_HOST_S)  # a port without a host reads as ended, and polls as readable


main()
