"""Tries to reach targets, all at once, and prints a line for each: target and what came back. Runs in guests, too.

A target is `tcp:ADDRESS:PORT`, `udp:ADDRESS:PORT` or `ping:ADDRESS`; what comes back is a greeting of `servers.py`,
`pong`, or the name of the error: ECONNREFUSED, EHOSTUNREACH, ETIMEDOUT, …
"""

import errno
import socket
import subprocess
import sys
import threading

TIMEOUT_S = 3


def reach(target: str) -> str:
    kind, _, rest = target.partition(":")
    if kind == "ping":
        command = ["ping", "-n", "-c", "1", "-W", str(TIMEOUT_S), rest]
        return "pong" if subprocess.run(command, capture_output=True).returncode == 0 else "silence"
    address, _, port = rest.rpartition(":")
    try:
        return say_hello(kind, address, int(port))
    except TimeoutError:
        return "ETIMEDOUT"
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error)) if error.errno else str(error)


def say_hello(kind: str, address: str, port: int) -> str:
    stream = socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM
    family, kind_of, _, _, where = socket.getaddrinfo(address, port, type=stream)[0]
    with socket.socket(family, kind_of) as client:
        client.settimeout(TIMEOUT_S)
        client.connect(where)
        client.sendall(b"hello\n")
        return client.recv(200).decode().strip() or "nothing"


def main() -> None:
    answers: dict[str, str] = {}
    threads = [
        threading.Thread(target=lambda one=target: answers.update({one: reach(one)}))
        for target in sys.argv[1:]
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print("".join(f"{target} {said}\n" for target, said in answers.items()), end="")


main()
