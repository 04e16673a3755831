"""`banger-root --owner UID --socket PATH`: serves one owner in the foreground until SIGTERM or SIGINT.

On its end the socket goes; bridge, taps and tables stay: VMs may live.
"""

import argparse
import hashlib
import os
import socket
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

from banger.privileged.contract.values import Refusal
from banger.privileged.helper.handlers import Handlers
from banger.privileged.helper.listener import open_listener
from banger.privileged.helper.log import Log
from banger.privileged.helper.refusals import translate
from banger.privileged.helper.server import Server

SOCKET = "/run/banger-root/root.sock"
_DIGEST_CHARACTERS = 16
_EXIT_STATUSES = {"bad_request": 64, "conflict": 75, "unauthorized": 77, "unavailable": 69}
_UID_MAX = 2**32 - 2


def main(arguments: Sequence[str] | None = None) -> None:
    """Raises SystemExit with one of sysexits(3) when it cannot serve."""
    options = _parse(arguments)
    log = Log()
    build = find_build()
    try:
        if os.geteuid() != 0:
            raise Refusal("unauthorized", "the root helper runs as root", "sudo banger system install")
        with open_listener(options.socket, options.owner) as listener:
            log.write(level="info", message="ready", pid=os.getpid(), owner=options.owner, build=build)
            _serve(listener, Handlers(options.owner, build), options.owner, log)
        log.write(level="info", message="ended", pid=os.getpid())
    except (Refusal, OSError) as error:
        refusal = error if isinstance(error, Refusal) else translate(error)
        hint = f"\nhint: {refusal.hint}" if refusal.hint else ""
        sys.stderr.write(f"banger-root: {refusal.message}{hint}\n")
        raise SystemExit(_EXIT_STATUSES.get(refusal.code, 70)) from None


def _serve(listener: socket.socket, handlers: Handlers, owner: int, log: Log) -> None:
    try:
        try:
            handlers.end_unsettled()
        except Refusal as refusal:  # the others are to be served all the same
            log.write(level="warning", message="not ended", why=refusal.message)
        Server(listener, handlers, owner, log).run(_notify_ready)
    finally:
        handlers.close()


def find_build() -> str:
    """The digest of the file that all of the helper's code is in; `source` when it runs from a source tree."""
    archive = next((parent for parent in Path(__file__).parents if zipfile.is_zipfile(parent)), None)
    if archive is None:
        return "source"
    return hashlib.sha256(archive.read_bytes()).hexdigest()[:_DIGEST_CHARACTERS]


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "banger-root", description="The part of banger that is root.", allow_abbrev=False
    )
    parser.add_argument("--owner", type=int, required=True, metavar="UID", help="whom it serves")
    parser.add_argument("--socket", default=SOCKET, metavar="PATH", help=f"where it listens ({SOCKET})")
    parser.add_argument(
        "--allow-root-owner", action="store_true", help="serve root itself: for containers and development"
    )
    options = parser.parse_args(arguments)
    if not 0 <= options.owner <= _UID_MAX:
        parser.error(f"{options.owner} is not a uid")
    if options.owner == 0 and not options.allow_root_owner:
        parser.error("--owner 0 leaves nothing to separate; add --allow-root-owner if that is meant")
    return options


def _notify_ready() -> None:
    """Tells systemd, where it asked for it (sd_notify(3))."""
    address = os.environ.pop("NOTIFY_SOCKET", "")
    if address[:1] in ("/", "@"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifier:
            notifier.sendto(b"READY=1", "\0" + address[1:] if address[0] == "@" else address)


if __name__ == "__main__":
    main()
