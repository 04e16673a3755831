"""Commands over the wire: frames, back-pressure, bad frames, leaving."""

import asyncio
import json
import struct

import pytest

from banger.daemon.stream import PENDING_INPUT_BYTES, CallerStream


async def start(client, *argv):
    await client.send({"v": 1, "method": "vm.exec", "params": {"vm": "web", "argv": list(argv)}, "op": "e"})
    return await client.receive()


async def read_last(client):
    while True:
        kind, payload = await client.receive_frame()
        if kind == 4:
            assert await client.at_end()
            return json.loads(payload)


async def test_input_comes_back_as_output_and_then_the_status(client):
    assert await start(client, "cat", "7") == {"op": "e", "stream": {"pid": 42}}
    await client.send_frame(0, b"hello")
    assert await client.receive_frame() == (1, b"hello")
    await client.send_frame(3, json.dumps({"rows": 24, "columns": 80}).encode())
    assert await client.receive_frame() == (2, b"24x80")
    await client.send_frame(0)
    assert await read_last(client) == {"status": 7}


async def test_a_signal_reaches_the_handler(client):
    await start(client, "cat")
    await client.send_frame(3, b'{"signal": 15}')
    assert await read_last(client) == {"signal": 15}


async def test_frames_may_arrive_in_any_pieces(client):
    await start(client, "cat")
    for byte in struct.pack(">BI", 0, 5) + b"hello":
        await client.send(bytes([byte]))
        await asyncio.sleep(0)
    assert await client.receive_frame() == (1, b"hello")


@pytest.mark.parametrize(("command", "code"), [("refuse", "not_running"), ("bug", "internal")])
async def test_a_refusal_before_the_stream_is_a_line_and_the_connection_lives(client, command, code):
    assert (await start(client, command))["error"]["code"] == code
    assert (await client.call("daemon.ping"))["result"] == {}


@pytest.mark.parametrize(("command", "code"), [("break", "unavailable"), ("forget", "internal")])
async def test_a_failure_within_the_stream_is_its_last_frame(client, command, code):
    await start(client, command)
    last = await read_last(client)
    assert last["error"]["code"] == code
    assert last["error"]["op"] == "e"


@pytest.mark.parametrize(
    "frame",
    [
        struct.pack(">BI", 9, 0),
        struct.pack(">BI", 1, 1) + b"x",
        struct.pack(">BI", 0, 65537),
        struct.pack(">BI", 3, 3) + b"{x}",
        struct.pack(">BI", 3, 2) + b"{}",
        struct.pack(">BI", 3, 13) + b'{"signal":99}',
        struct.pack(">BI", 3, 10) + b'{"rows":1}',
        struct.pack(">BI", 3, 9) + b'{"a":"b"}',
        struct.pack(">BI", 0, 0) * 2,
        struct.pack(">BI", 0xFF, 0xFFFFFFFF),
    ],
)
async def test_a_bad_frame_ends_the_stream_with_bad_request(client, harness, frame):
    await start(client, "sink")
    await client.send(frame)
    assert (await read_last(client))["error"]["code"] == "bad_request"
    await asyncio.wait_for(harness.services.cancelled.wait(), 5)


async def test_frames_before_the_stream_has_begun_are_refused(client, harness):
    await client.send({"v": 1, "method": "vm.exec", "params": {"vm": "web", "argv": ["wait-before"]}})
    await harness.services.began.wait()
    await client.send_frame(0, b"early")
    assert (await client.receive())["error"]["code"] == "bad_request"
    await asyncio.wait_for(harness.services.cancelled.wait(), 5)


async def test_leaving_ends_the_command(client, harness):
    await start(client, "sink")
    client.leave()
    await asyncio.wait_for(harness.services.cancelled.wait(), 5)


async def test_output_waits_for_a_slow_reader(client, harness):
    await start(client, "flood")
    client.writer.transport.pause_reading()
    (connection,) = harness.server._connections
    written = -1
    while written != harness.services.written:
        written = harness.services.written
        await asyncio.sleep(0.05)
    assert connection._transport.get_write_buffer_size() < 2**19
    assert written < 8 * 2**20
    client.leave()
    await asyncio.wait_for(harness.services.cancelled.wait(), 5)


async def test_input_that_nobody_takes_is_not_read_and_leaving_is_noticed_all_the_same(client, harness):
    await start(client, "sink")
    payload = struct.pack(">BI", 0, 65536) + bytes(65536)

    async def send_for_ever():
        while True:
            client.writer.write(payload)
            await asyncio.wait_for(client.writer.drain(), 0.5)

    with pytest.raises(TimeoutError):
        await send_for_ever()
    (stream,) = harness.services.streams
    assert stream.pending_bytes < PENDING_INPUT_BYTES + 3 * 65536
    client.leave()  # the daemon does not read: only the hang-up tells
    await asyncio.wait_for(harness.services.cancelled.wait(), 5)
    while harness.server.connections:
        await asyncio.sleep(0)


async def test_a_megabyte_each_way_is_unchanged(client):
    await start(client, "cat")
    sent = bytes(range(256)) * 8192

    async def feed():
        for begin in range(0, len(sent), 50_000):
            await client.send_frame(0, sent[begin : begin + 50_000])
        await client.send_frame(0)

    feeding = asyncio.create_task(feed())
    received = bytearray()
    while True:
        kind, payload = await client.receive_frame()
        if kind == 4:
            break
        received += payload
    await feeding
    assert received == sent


async def test_a_slow_reader_gets_all_that_was_written_before_the_end(client, monkeypatch):
    monkeypatch.setattr("banger.daemon.connection.LINGER_S", 0.01)
    await start(client, "burst", "3")
    await asyncio.sleep(0.1)
    total = 0
    while (frame := await client.receive_frame())[0] == 1:
        total += len(frame[1])
        if total % (2**20) == 0:
            await asyncio.sleep(0.02)
    assert total == 8 * 2**20
    assert json.loads(frame[1]) == {"status": 3}


class QuickLink:
    """A peer that takes everything at once."""

    def __init__(self):
        self.sent = []

    def write(self, data):
        self.sent.append(data)

    async def drain(self):
        return

    def begin_frames(self, stream):
        pass

    def close_after(self, last):
        self.sent.append(last)


async def test_output_to_a_quick_reader_leaves_the_loop_to_others():
    stream = CallerStream(QuickLink(), "op")
    await stream.accept(pid=1)
    turns = 0

    async def write():
        for _ in range(200):
            await stream.write(1, bytes(65536))

    writing = asyncio.create_task(write())
    while not writing.done():
        turns += 1
        await asyncio.sleep(0)
    assert turns > 40


async def test_after_a_failure_the_handlers_last_words_are_dropped():
    link = QuickLink()
    stream = CallerStream(link, "op")
    await stream.accept(pid=1)
    stream.fail({"code": "bad_request"})
    sent = len(link.sent)
    await stream.write(1, b"late")
    await stream.finish(signal=9)
    assert len(link.sent) == sent


async def test_an_error_too_large_for_a_frame_loses_its_detail():
    link = QuickLink()
    stream = CallerStream(link, "op")
    await stream.accept(pid=1)
    stream.fail({"code": "operation_failed", "message": "m", "detail": "x" * 100_000})
    assert json.loads(link.sent[-1][5:]) == {"error": {"code": "operation_failed", "message": "m"}}


async def test_events_stand_in_their_place_among_the_bytes():
    link = QuickLink()
    stream = CallerStream(link, "op")
    await stream.accept(pid=1, session="s-1")
    assert json.loads(link.sent[0]) == {"op": "op", "stream": {"pid": 1, "session": "s-1"}}
    await stream.write(1, b"before")
    await stream.tell({"gap": {"from": 6, "to": 9}})
    await stream.write(2, b"after")
    await stream.finish(status=0)
    assert [frame[0] for frame in link.sent[1:]] == [1, 5, 2, 4]
    assert json.loads(link.sent[2][5:]) == {"gap": {"from": 6, "to": 9}}
