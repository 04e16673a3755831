import itertools
import socket
import threading

import pytest

from banger.client import wire
from banger.client.blocking import CommandConnection
from banger.client.file_stream import receive, send
from banger.client.statuses import END, STDOUT
from banger.client.wire import Failure


@pytest.fixture
def ends():
    ours, theirs = socket.socketpair()
    yield CommandConnection(ours, b"", about={}, op=None), theirs
    ours.close()
    theirs.close()


def frame(kind, payload):
    return wire.encode_header(kind, len(payload)) + payload


def drain(connected):
    """Takes what comes and forgets it, as the daemon does after the last frame."""
    try:
        while connected.recv(1 << 20):
            pass
    except OSError:
        return


def test_sending_ends_with_the_last_word_although_everything_would_be_taken(ends):
    command, peer = ends
    peer.sendall(frame(END, b'{"error": {"code": "no_space", "message": "full"}}'))
    threading.Thread(target=drain, args=(peer,), daemon=True).start()
    with pytest.raises(Failure, match="full"):
        send(command, itertools.repeat(bytes(100_000)))


def test_a_good_end_before_everything_was_sent_is_a_failure(ends):
    command, peer = ends
    peer.sendall(frame(END, b'{"status": 0}'))
    threading.Thread(target=drain, args=(peer,), daemon=True).start()
    with pytest.raises(Failure, match="ended the copy before everything was sent"):
        send(command, itertools.repeat(bytes(100_000)))


def test_sending_into_a_lost_connection_is_a_failure(ends):
    command, peer = ends
    peer.close()
    with pytest.raises(Failure, match="the connection to the daemon is lost"):
        send(command, itertools.repeat(bytes(100_000)))


def test_receiving_ends_with_the_last_word_only(ends):
    command, peer = ends
    peer.sendall(frame(STDOUT, b"one") + frame(5, b"{}") + frame(STDOUT, b"two"))
    pieces = receive(command)
    assert [next(pieces), next(pieces)] == [b"one", b"two"]
    peer.close()
    with pytest.raises(Failure, match="lost"):
        next(pieces)
