import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banger.api.frames import MAX_PAYLOAD_BYTES
from banger.api.method import MAX_LINE_BYTES
from banger.base.problem import Problem
from banger.daemon.framing import Frame, FrameSplitter, LineSplitter, render_frame

lines = st.lists(st.binary(max_size=40).map(lambda data: data.replace(b"\n", b"")), max_size=8)
frames = st.lists(st.builds(Frame, st.integers(0, 255), st.binary(max_size=40)), max_size=8)


def cut(data, cuts):
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[begin:end] for begin, end in pairwise(edges)]


@given(lines, st.binary(max_size=20), st.lists(st.integers(0, 1000), max_size=20))
def test_lines_come_out_whole_however_they_are_cut(content, rest, cuts):
    rest = rest.replace(b"\n", b"")
    splitter, found = LineSplitter(), []
    for piece in cut(b"".join(line + b"\n" for line in content) + rest, cuts):
        line = splitter.feed(piece)
        while line is not None:
            found.append(line)
            line = splitter.feed(b"")
    assert found == content
    assert splitter.pending == len(rest)


@pytest.mark.parametrize("size", [1000, 4096, MAX_LINE_BYTES])
def test_a_line_may_be_as_long_as_the_limit_and_no_longer(size):
    splitter = LineSplitter()

    def feed(content):
        return [splitter.feed(content[begin : begin + size]) for begin in range(0, len(content), size)]

    whole = b"x" * (MAX_LINE_BYTES - 1) + b"\n"
    assert feed(whole)[-1] == whole[:-1]
    with pytest.raises(Problem):
        feed(b"x" + whole)


@given(frames, st.lists(st.integers(0, 1000), max_size=20))
def test_frames_come_out_whole_however_they_are_cut(content, cuts):
    splitter, found = FrameSplitter(), []
    for piece in cut(b"".join(render_frame(*frame) for frame in content), cuts):
        found.extend(splitter.feed(piece))
    assert found == content


def test_an_oversized_frame_is_refused_by_its_header_alone():
    with pytest.raises(Problem, match="65537"):
        list(FrameSplitter().feed(struct.pack(">BI", 0, MAX_PAYLOAD_BYTES + 1)))
