"""The link against a guest that does exactly what each test says, misbehaviour included."""

import asyncio
import tracemalloc
from contextlib import suppress
from itertools import groupby

import pytest

from banger.base.problem import Code, Outcome, Problem
from banger.guest.agent import Agent
from banger.guest.channel import Channel
from banger.guest.command import ExecRequest
from banger.guest.frames import (
    MAX_PAYLOAD_BYTES,
    WINDOW_BYTES,
    Fields,
    FrameType,
    Stream,
    decode_fields,
    encode_fields,
    encode_frame,
    encode_u32,
)
from banger.guest.link import Link, Welcome, parse_welcome

BOOT_ID = "01234567-89ab-cdef-0123-456789abcdef"
BLOCK = bytes(MAX_PAYLOAD_BYTES)
CAT = ExecRequest(argv=("cat",), stdin=True)


async def settle(condition) -> None:
    """Gives other tasks turns until the condition holds; the test's own timeout is the limit."""
    while not condition():
        await asyncio.sleep(0)


async def test_open_returns_what_the_guest_says_when_it_is_ready(pair) -> None:
    link, _ = pair
    assert link.welcome == Welcome("9", BOOT_ID, 7, {"root": 5})
    assert not link.is_closed


async def test_open_discards_stale_bytes_and_an_older_welcome(connect, scripted) -> None:
    host, streams = await connect()
    guest = scripted(streams)
    async with asyncio.TaskGroup() as group:
        opening = group.create_task(Link.open(*host))
        stale = encode_frame(FrameType.DATA, 1, 3, BLOCK)
        for _ in range(100):
            guest.writer.write(stale)
        guest.writer.write(stale[100:3000])
        await guest.receive_hello()
        guest.writer.write(guest.welcome(nonce=b"x" * 16) + b"\0\1\2" + guest.welcome()[:20])
        guest.writer.write(guest.welcome())
    async with opening.result() as link:
        assert link.welcome.boot_id == BOOT_ID
        assert link.buffered_bytes == 0
    guest.writer.close()


async def test_open_raises_unavailable_when_the_connection_ends_first(connect) -> None:
    host, (_, guest_writer) = await connect()
    guest_writer.close()
    with pytest.raises(Problem) as caught:
        await Link.open(*host)
    assert caught.value.code is Code.UNAVAILABLE


async def test_a_cancelled_open_drops_the_connection(connect) -> None:
    host, (guest_reader, guest_writer) = await connect()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await Link.open(*host)
    with suppress(ConnectionError):
        while await guest_reader.read(65536):
            pass
    guest_writer.close()


async def test_the_end_of_the_connection_fails_every_channel_with_outcome_unknown(pair) -> None:
    link, guest = pair
    agent = Agent(link)
    tasks = [asyncio.ensure_future(agent.health()), asyncio.ensure_future(agent.sync())]
    await guest.expect_open()
    await guest.expect_open()
    guest.writer.close()
    for task in tasks:
        with pytest.raises(Problem) as caught:
            await task
        assert (caught.value.code, caught.value.outcome) == (Code.UNAVAILABLE, Outcome.UNKNOWN)
    assert (await link.wait_closed()).code is Code.UNAVAILABLE
    with pytest.raises(Problem) as caught:
        await agent.health()
    assert caught.value.outcome is Outcome.NOT_STARTED


async def test_aclose_fails_callers_and_is_idempotent(pair) -> None:
    link, guest = pair
    task = asyncio.ensure_future(Agent(link).health())
    await guest.expect_open()
    await link.aclose()
    await link.aclose()
    with pytest.raises(Problem, match="was closed"):
        await task
    with suppress(ConnectionError):
        assert await guest.reader.read() == b""


@pytest.mark.parametrize(
    "misstep",
    [
        lambda channel: b"\0" * 12,
        lambda channel: encode_frame(FrameType.OPEN, 0, channel),
        lambda channel: encode_frame(FrameType.WELCOME, 0, 0),
        lambda channel: encode_frame(FrameType.DATA, Stream.STDIN, channel, b"x"),
        lambda channel: encode_frame(FrameType.DATA, 1, channel, BLOCK) * (WINDOW_BYTES // len(BLOCK) + 1),
        lambda channel: (
            encode_frame(FrameType.EOF, 1, channel) + encode_frame(FrameType.DATA, 1, channel, b"x")
        ),
        lambda channel: encode_frame(FrameType.EOF, Stream.STDIN, channel),
        lambda channel: encode_frame(FrameType.WINDOW, Stream.STDOUT, channel, encode_u32(1)),
        lambda channel: encode_frame(FrameType.WINDOW, Stream.STDIN, channel, b"\1"),
        lambda channel: encode_frame(FrameType.STARTED, 0, channel) * 2,
        lambda channel: encode_frame(FrameType.EOF, 1, channel + 1),
        lambda channel: encode_frame(FrameType.DATA, 1, channel + 50, BLOCK),
        lambda channel: encode_frame(FrameType.END, 0, 2**32 - 1, encode_u32(0)),
        lambda channel: encode_frame(FrameType.END, 0, channel, b"\0\0"),
        lambda channel: encode_frame(FrameType.END, 0, channel, encode_u32(0) + b"\1\1"),
    ],
)
async def test_the_guests_first_misstep_ends_the_link(pair, misstep) -> None:
    link, guest = pair
    task = asyncio.ensure_future(Agent(link).health())
    channel, _, _ = await guest.expect_open()
    guest.writer.write(misstep(channel))
    with pytest.raises(Problem) as caught:
        await task
    assert caught.value.brief == "the guest agent broke its protocol"
    assert caught.value.outcome is Outcome.UNKNOWN
    assert link.is_closed


async def test_nothing_comes_after_an_end(pair) -> None:
    link, guest = pair
    task = asyncio.ensure_future(Agent(link).sync())
    channel, _, _ = await guest.expect_open()
    guest.send_end(channel)
    await task
    guest.send(FrameType.EOF, channel, stream=1)
    problem = await link.wait_closed()
    assert problem.brief == "the guest agent broke its protocol"


async def abandon_one(link: Link, guest) -> int:
    async with link.start_channel(2):
        number, _, _ = await guest.expect_open()
    await guest.expect(FrameType.CLOSE, number)
    return number


async def test_both_windows_of_a_closed_channel_may_still_come_and_then_its_end(pair) -> None:
    link, guest = pair
    number = await abandon_one(link, guest)
    for stream in (1, 2):
        for _ in range(WINDOW_BYTES // 32):
            guest.send(FrameType.DATA, number, b"x" * 32, stream=stream)
        guest.send(FrameType.EOF, number, stream=stream)
    guest.send_end(number, 125)
    task = asyncio.ensure_future(Agent(link).sync())
    other, _, _ = await guest.expect_open()
    guest.send_end(other)
    await task
    guest.send_end(number, 125)  # a second one
    assert (await link.wait_closed()).brief == "the guest agent broke its protocol"


async def test_a_guest_that_goes_on_after_a_close_loses_the_link(pair) -> None:
    link, guest = pair
    number = await abandon_one(link, guest)
    empty = encode_frame(FrameType.DATA, 1, number) * 1000
    with suppress(ConnectionError):
        while not link.is_closed:
            guest.writer.write(empty)
            await guest.writer.drain()
            await asyncio.sleep(0)
    assert (await link.wait_closed()).brief == "the guest agent broke its protocol"


async def test_a_burst_of_small_frames_leaves_everybody_else_their_turns(pair) -> None:
    link, guest = pair
    async with link.start_channel(2) as channel:
        number, _, _ = await guest.expect_open()
        guest.writer.write(encode_frame(FrameType.DATA, 1, number, b"x") * 10_000)
        seen = set()
        while channel.buffered_bytes < 10_000:
            seen.add(channel.buffered_bytes)
            await asyncio.sleep(0)
    assert len(seen) >= 30


async def test_controls_do_not_gather_on_a_full_socket(pair) -> None:
    """Of resizes the newest counts; each signal comes once; all of them after what was sent before."""
    link, guest = pair
    async with link.start_channel(2) as channel:
        number, _, _ = await guest.expect_open()
        writing = asyncio.ensure_future(channel.write(Stream.STDIN, bytes(WINDOW_BYTES)))
        transport = link._outbox._writer.transport
        await settle(lambda: transport.get_write_buffer_size() >= 65536)
        before = transport.get_write_buffer_size()
        for n in range(10_000):
            channel.post_control(2, [(1, n), (2, n)])
            channel.post_control(1, [(1, 15 if n % 2 else 2)])
        assert transport.get_write_buffer_size() == before
        received, controls = 0, []
        while received < WINDOW_BYTES or len(controls) < 3:
            frame = await guest.receive()
            if frame.type == FrameType.DATA:
                received += len(frame.payload)
            else:
                controls.append((frame.payload[0], decode_fields(frame.payload[2:]).find_number(1)))
        assert controls == [(1, 2), (2, 9999), (1, 15)]
        assert await writing
        channel.post_control(1, [(1, 9)])
        assert (await guest.expect(FrameType.CONTROL, number)).payload[0] == 1


@pytest.mark.parametrize(
    "boot_id", [b"boot", b"\xff" * 36, BOOT_ID.upper().encode(), BOOT_ID.encode() + b"\n"]
)
def test_a_boot_id_that_is_none_is_empty(boot_id) -> None:
    assert parse_welcome(Fields([(2, boot_id)])).boot_id == ""


def test_the_words_of_a_welcome_are_printable_short_and_few() -> None:
    number = (5).to_bytes(8, "little")
    stages = [(5, b"stage %d\x1b[2J\xff\0" % n + number) for n in range(1000)]
    hostile = b"a\x1b]0;b\x07\n" + b"c" * 10_000
    welcome = parse_welcome(Fields([(1, hostile), *stages, (5, b"x" * 9999 + b"\0" + number)]))
    assert welcome.agent_version == ("a]0;b" + "c" * 64)[:64]
    assert len(welcome.stages) == 64
    assert next(iter(welcome.stages)) == "stage 0[2J\ufffd"


async def test_cancelling_a_caller_sends_close_for_its_channel_only(pair) -> None:
    link, guest = pair
    agent = Agent(link)
    doomed = asyncio.ensure_future(agent.health())
    first, _, _ = await guest.expect_open()
    other = asyncio.ensure_future(agent.sync())
    second, _, _ = await guest.expect_open()
    doomed.cancel()
    await guest.expect(FrameType.CLOSE, first)
    with pytest.raises(asyncio.CancelledError):
        await doomed
    guest.send(FrameType.DATA, first, BLOCK, stream=1)  # crossed the CLOSE
    guest.send_end(second)
    await other


async def test_leaving_a_command_early_sends_close_and_after_its_end_does_not(pair) -> None:
    link, guest = pair

    async def leave_early() -> None:
        async with Agent(link).exec(CAT):
            pass

    task = asyncio.ensure_future(leave_early())
    channel, _, _ = await guest.expect_open()
    guest.send_started(channel, (1, 42))
    await guest.expect(FrameType.CLOSE, channel)
    await task

    async def stay() -> int:
        async with Agent(link).exec(CAT) as command:
            assert command.pid == 43
            return (await command.wait()).shell_status

    task = asyncio.ensure_future(stay())
    channel, _, _ = await guest.expect_open()
    guest.send_started(channel, (1, 43))
    guest.send_end(channel, 0, (2, 9))
    assert await task == 137
    later = asyncio.ensure_future(Agent(link).sync())
    await guest.expect(FrameType.OPEN)
    later.cancel()


async def test_an_unread_stream_of_64_mib_stays_within_its_window(pair) -> None:
    """The guest sends whenever it holds window. Unread: one window is buffered. Read: all of it arrives."""
    link, guest = pair
    total, block_count = 64 << 20, (64 << 20) // len(BLOCK)
    sent_bytes = 0

    async def send_all(channel: int) -> None:
        nonlocal sent_bytes
        window = WINDOW_BYTES
        for _ in range(block_count):
            while window < len(BLOCK):
                frame = await guest.expect(FrameType.WINDOW, channel)
                window += int.from_bytes(frame.payload, "little")
            guest.send(FrameType.DATA, channel, BLOCK, stream=1)
            await guest.writer.drain()
            window -= len(BLOCK)
            sent_bytes += len(BLOCK)
        guest.send(FrameType.EOF, channel, stream=1)
        guest.send_end(channel)

    async with asyncio.TaskGroup() as group, link.start_channel(2) as channel:
        number, _, _ = await guest.expect_open()
        group.create_task(send_all(number))
        await settle(lambda: channel.buffered_bytes == WINDOW_BYTES)
        assert sent_bytes == WINDOW_BYTES
        tracemalloc.start()
        received = peak = 0
        while (output := await channel.read()) is not None:
            received += len(output.data)
            peak = max(peak, link.buffered_bytes)
        memory = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert received == total
    assert peak <= WINDOW_BYTES
    assert memory < 4 << 20
    assert link.buffered_bytes == 0


async def test_a_channel_that_nobody_reads_does_not_hold_up_another(pair) -> None:
    link, guest = pair
    agent = Agent(link)
    async with link.start_channel(2) as unread:
        number, _, _ = await guest.expect_open()
        for _ in range(WINDOW_BYTES // len(BLOCK)):
            guest.send(FrameType.DATA, number, BLOCK, stream=1)
        await settle(lambda: unread.buffered_bytes == WINDOW_BYTES)
        for _ in range(3):
            task = asyncio.ensure_future(agent.sync())
            other, _, _ = await guest.expect_open()
            guest.send_end(other)
            await task


async def test_writing_stops_at_the_guests_window_and_goes_on_when_it_grants_more(pair) -> None:
    link, guest = pair
    content = bytes(range(256)) * 2048  # two windows
    async with link.start_channel(2) as channel:
        number, _, _ = await guest.expect_open()
        task = asyncio.ensure_future(channel.write(Stream.STDIN, content))
        received = b""
        while len(received) < WINDOW_BYTES:
            received += (await guest.expect(FrameType.DATA, number)).payload
        await asyncio.sleep(0.01)
        assert not task.done()
        guest.send(FrameType.WINDOW, number, encode_u32(WINDOW_BYTES))
        while len(received) < len(content):
            received += (await guest.expect(FrameType.DATA, number)).payload
        assert await task
        assert received == content


async def test_a_writer_is_told_when_the_channel_ended_under_it(pair) -> None:
    link, guest = pair
    async with link.start_channel(2) as channel:
        number, _, _ = await guest.expect_open()
        task = asyncio.ensure_future(channel.write(Stream.STDIN, bytes(WINDOW_BYTES + 1)))
        for _ in range(WINDOW_BYTES // len(BLOCK)):
            await guest.expect(FrameType.DATA, number)
        guest.send_end(number, 28)
        assert await task is False


async def test_writers_take_turns_on_a_socket_that_is_full(pair) -> None:
    """Both have window for all of it. The first fills the socket; from then on they alternate."""
    link, guest = pair
    async with link.start_channel(2) as a, link.start_channel(2) as b, asyncio.TaskGroup() as group:
        await guest.expect_open()
        await guest.expect_open()
        for channel in (a, b):
            group.create_task(channel.write(Stream.STDIN, bytes(WINDOW_BYTES)))
        order = [(await guest.expect(FrameType.DATA)).channel for _ in range(2 * WINDOW_BYTES // len(BLOCK))]
    runs = [len(list(run)) for _, run in groupby(order)]
    assert len(runs) >= 4
    assert max(runs[1:-1]) <= 4


async def test_what_arrived_before_the_connection_ended_can_still_be_read(pair) -> None:
    link, guest = pair
    async with link.start_channel(2) as channel:
        number, _, _ = await guest.expect_open()
        guest.send(FrameType.DATA, number, b"last words", stream=1)
        guest.writer.close()
        await link.wait_closed()
        output = await channel.read()
        assert output is not None
        assert output.data == b"last words"
        with pytest.raises(Problem):
            await channel.read()


async def test_single_bytes_on_alternating_streams_cost_little_memory(pair) -> None:
    link, guest = pair
    async with link.start_channel(2) as channel:
        assert isinstance(channel, Channel)
        number, _, _ = await guest.expect_open()
        one = encode_frame(FrameType.DATA, 1, number, b"o") + encode_frame(FrameType.DATA, 2, number, b"e")
        tracemalloc.start()
        for _ in range(100):
            guest.writer.write(one * 200)
            await guest.writer.drain()
        await settle(lambda: channel.buffered_bytes == 40_000)
        memory = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert memory < 3 << 20
        received = {Stream.STDOUT: b"", Stream.STDERR: b""}
        while channel.buffered_bytes:
            output = await channel.read()
            received[output.stream] += output.data
        assert received == {Stream.STDOUT: b"o" * 20_000, Stream.STDERR: b"e" * 20_000}


async def test_an_oversized_request_is_refused_before_it_is_sent(pair) -> None:
    link, _ = pair
    with pytest.raises(Problem) as caught:
        await Agent(link).run(["echo", "x" * 20_000])
    assert caught.value.code is Code.BAD_REQUEST
    assert caught.value.outcome is Outcome.NOT_STARTED


async def test_an_answer_without_its_required_fields_is_a_problem_and_the_link_lives_on(pair) -> None:
    link, guest = pair
    task = asyncio.ensure_future(Agent(link).health())
    channel, _, _ = await guest.expect_open()
    guest.send(FrameType.END, channel, encode_u32(0) + encode_fields([(1, 5)]))
    with pytest.raises(Problem, match="makes no sense"):
        await task
    assert not link.is_closed
