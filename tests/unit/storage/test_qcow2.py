"""Overlays written in-process, judged by QEMU's own tool."""

import json
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banger.base.problem import Problem
from banger.base.units import GIB, TIB
from banger.storage.qcow2 import create_overlay, render_overlay

needs_qemu_img = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed")


def qemu_img(*words):
    return subprocess.run(["qemu-img", *words], check=True, capture_output=True, text=True).stdout


@needs_qemu_img
@pytest.mark.parametrize("size", [None, 5 * GIB, 4 * TIB, 3 * GIB + 7])
def test_qemu_finds_the_overlay_sound(tmp_path, size):
    image, overlay = tmp_path / "image, with comma.raw", tmp_path / "overlay.qcow2"
    image.touch()
    with image.open("r+b") as file:
        file.truncate(3 * GIB)
    create_overlay(overlay, image, size_bytes=size)
    info = json.loads(qemu_img("info", "--output=json", str(overlay)))
    assert info["virtual-size"] == -(-max(size or 0, 3 * GIB) // 512) * 512
    assert info["full-backing-filename"] == str(image)
    assert info["backing-filename-format"] == "raw"
    assert json.loads(qemu_img("check", "--output=json", str(overlay)))["check-errors"] == 0
    assert info["actual-size"] < 64 * 1024


@needs_qemu_img
def test_the_guest_sees_the_image_through_the_overlay(tmp_path):
    image, overlay, flat = tmp_path / "image", tmp_path / "overlay", tmp_path / "flat"
    image.write_bytes(b"banger" * 100_000)
    create_overlay(overlay, image, size_bytes=1024 * 1024)
    qemu_img("convert", "-O", "raw", str(overlay), str(flat))
    assert flat.read_bytes() == image.read_bytes().ljust(1024 * 1024, b"\0")


def test_an_overlay_is_never_smaller_than_its_image(tmp_path):
    image = tmp_path / "image"
    image.write_bytes(bytes(1_000_000))
    create_overlay(tmp_path / "overlay", image, size_bytes=512)
    head = (tmp_path / "overlay").read_bytes()[24:32]
    assert int.from_bytes(head, "big") == 1_000_448


def test_a_missing_image_and_an_impossible_size_are_told(tmp_path):
    with pytest.raises(Problem, match="is missing"):
        create_overlay(tmp_path / "overlay", tmp_path / "nothing")
    with pytest.raises(Problem, match="too large"):
        render_overlay("/image", 5 * TIB)
    with pytest.raises(Problem, match="exceeds"):
        render_overlay("/" + "x" * 1100, GIB)
    assert not list(tmp_path.iterdir())


@given(st.integers(1, 4 * TIB), st.text(st.characters(codec="ascii", exclude_characters="\0"), max_size=1000))
def test_pieces_never_overlap_and_fit_their_clusters(size, name):
    pieces = render_overlay("/" + name, size)
    assert all(len(content) <= 65536 and offset % 65536 == 0 for offset, content in pieces)
    assert pieces[0][1].endswith(("/" + name).encode())
