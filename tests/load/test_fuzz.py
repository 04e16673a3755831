"""A million malformed frames against the daemon's real server: it answers or closes each, and is none the worse."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.fuzz.peers import Peer, read_resident_bytes

pytestmark = [pytest.mark.load, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]
FRAMES = int(os.environ.get("BANGER_FUZZ_FRAMES", "1000000"))
PEERS = 64
STREAMS_EVERY = 40  # of a peer's turns
GROWTH_BYTES = 8 * 1024 * 1024


@pytest.fixture
def daemon() -> Iterator[tuple[subprocess.Popen[str], Path]]:
    with tempfile.TemporaryDirectory(prefix="bf-", dir="/tmp") as name:
        directory = Path(name)
        argv = [sys.executable, "-m", "tests.support.fuzz.daemon", name]
        with (
            (directory / "stderr").open("w") as stderr,
            subprocess.Popen(
                argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True
            ) as process,
        ):
            yield process, directory


def test_a_million_malformed_frames_are_answered_or_closed(
    daemon: tuple[subprocess.Popen[str], Path],
) -> None:
    process, directory = daemon
    assert process.stdout is not None
    assert process.stdin is not None
    path = process.stdout.readline().strip()
    seed = os.environ.get("BANGER_FUZZ_SEED", "same")
    print(f"hunt with: BANGER_FUZZ_SEED=... make test-load; this was {seed}")
    peers = [Peer(path, f"{seed}-{number}") for number in range(PEERS)]

    def send_until(frames: int) -> None:
        turn = 0
        while sum(peer.sent for peer in peers) < frames:
            turn += 1
            for number, peer in enumerate(peers):
                if (turn + number) % STREAMS_EVERY == 0:
                    peer.fuzz_stream()
                peer.begin()
            for peer in peers:
                peer.carry_on()
            for peer in peers:
                peer.finish()

    for peer in peers[:8]:
        peer.begin_oversized()
        peer.finish()
    send_until(FRAMES // 4)
    warm = read_resident_bytes(process.pid)
    send_until(FRAMES)
    grown = read_resident_bytes(process.pid) - warm
    sent, answered, closed = (
        sum(getattr(peer, what) for peer in peers) for what in ("sent", "answered", "closed")
    )
    print(
        f"{sent} frames: {answered} answered, {closed} connections ended; {grown / 2**20:+.1f} MiB resident"
    )

    for peer in peers:
        peer.close()
    assert peers[0].is_alive(), "the daemon does not answer any more"
    peers[0].close()
    process.stdin.close()
    assert process.wait(30) == 0
    assert (directory / "alarms").read_text() == ""
    assert (directory / "stderr").read_text() == ""
    assert grown < GROWTH_BYTES
