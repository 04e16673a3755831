"""The helper's own code on the kernel's device-mapper, in a lab that knows nothing of banger."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.lab.conftest import need_lab
from tests.lab.machine import Machine
from tests.support.banger import DATA, ROOT, make_material

from banger.installation.helper_archive import render_archive

PROGRAM = Path(__file__).parent / "inside" / "snapshots.py"
ARCHIVE = "/run/banger-root.pyz"
VM, OTHER = "0123456789ab", "ba9876543210"
NODE = "/dev/lab-disk"
MIB = 1 << 20
IMAGE, LAYER = "/home/alice/image", "/home/alice/layer"
ATTACH = ("attach", VM, 32 * MIB, IMAGE, LAYER)
GONE = [("detach", VM), ("left",)]


@pytest.fixture(scope="module")
def lab() -> Iterator[Machine]:
    from tools.lab.stages import ensure_booted_state
    from tools.lab.states import open_lab

    need_lab()
    make_material("lab")
    lab = open_lab(ensure_booted_state(DATA / "banger"))
    try:
        machine = Machine(lab)
        machine.put(ARCHIVE, render_archive(ROOT / "src" / "banger", "/usr/bin/python3"))
        machine.put("/run/snapshots.py", PROGRAM.read_bytes())
        yield machine
    finally:
        lab.close()


@pytest.fixture(autouse=True)
def files(lab: Machine) -> Iterator[None]:
    """Of alice's: an image that begins with `base`, and an empty layer. Nothing is left of the test afterwards."""
    lab.sh(
        f"cd /home/alice; rm -f {IMAGE} {LAYER}; truncate -s 16M {IMAGE}; truncate -s 20M {LAYER};"
        f"printf base | dd of={IMAGE} conv=notrunc status=none; chown alice: {IMAGE} {LAYER}"
    )
    yield
    assert call(lab, *GONE) == [None, []]
    assert lab.sh("dmsetup ls; losetup --list; mount | grep /mnt || true") == "No devices found\n"


def ask(lab: Machine, *calls: tuple[object, ...]) -> list[dict[str, object]]:
    argv = ("python3", "-I", "-S", "/run/snapshots.py", ARCHIVE)
    return json.loads(lab.run(*argv, stdin=json.dumps(calls).encode(), timeout_s=300).out)


def call(lab: Machine, *calls: tuple[object, ...]) -> list[object]:
    """None of them is refused."""
    return [answer["returned"] for answer in ask(lab, *calls)]


def write(lab: Machine, text: str, *, block: int = 0) -> None:
    lab.sh(f"printf {text} | dd of={NODE} bs=4096 seek={block} conv=notrunc,fsync status=none")


def read(lab: Machine, count: int, *, block: int = 0) -> str:
    return lab.sh(f"dd if={NODE} bs=4096 skip={block} count=1 status=none | head -c {count} | tr '\\0' 0")


def fill(lab: Machine, mebibytes: int) -> None:
    """Until the kernel has given the layer up: then reading fails as well."""
    done = lab.run(
        *("dd", "if=/dev/urandom", f"of={NODE}", "bs=64k", f"count={mebibytes * 16}", "conv=fsync"),
        check=False,
    )
    assert "Input/output error" in done.stderr
    assert lab.run("head", "-c", "1", NODE, check=False).status != 0


def test_this_host_has_what_it_takes(lab):
    (support,) = call(lab, ("inspect",))
    assert (support["snapshot_reason"], support["snapshot_hint"]) == ("", "")


def test_what_is_written_outlives_the_device_and_the_image_stays_as_it_was(lab):
    before = lab.sh(f"sha256sum {IMAGE}")
    attached = call(lab, ("list_all",), ATTACH, ("list_all",), ("node", VM, NODE))
    new = {"vm": VM, "state": "active", "used_bytes": 8192, "size_bytes": 20 * MIB, "in_use": False}
    assert attached == [[], None, [new], None]
    assert read(lab, 4) == "base"
    write(lab, "guest")
    write(lab, "grown", block=5000)  # beyond the image
    *_, listed, gone, left = call(lab, ("list_all",), *GONE)
    assert (listed[0]["used_bytes"], gone, left) == (16384, None, [])
    assert call(lab, ATTACH, ("list_all",), ("node", VM, NODE))[1][0]["used_bytes"] == 16384
    assert [read(lab, 5), read(lab, 5, block=5000)] == ["guest", "grown"]
    assert call(lab, *GONE) == [None, []]
    assert lab.sh(f"sha256sum {IMAGE}") == before


def test_a_larger_disk_has_zeroes_behind_the_image(lab):
    lab.sh(f"printf end | dd of={IMAGE} bs=1 seek={16 * MIB - 3} conv=notrunc status=none")
    call(lab, ATTACH, ("node", VM, NODE))
    assert lab.sh(f"blockdev --getsize64 {NODE}; blockdev --getro {NODE}").split() == [str(32 * MIB), "0"]
    assert lab.sh(f"tail -c {16 * MIB + 3} {NODE} | head -c 8 | tr '\\0' 0") == "end00000"
    assert lab.sh(f"tail -c {16 * MIB} {NODE} | tr -d '\\0' | wc -c") == "0\n"


def test_a_second_one_of_the_name_is_refused_and_one_of_another_is_not(lab):
    lab.sh("cp --sparse=always /home/alice/layer /home/alice/layer2; chown alice: /home/alice/layer2")
    other = ("attach", OTHER, 32 * MIB, IMAGE, "/home/alice/layer2")
    first, taken, second, listed = ask(lab, ATTACH, ATTACH, other, ("list_all",))
    assert (taken["refused"], taken["hint"]) == (
        "conflict",
        f"sudo dmsetup remove banger-{VM} banger-{VM}-base",
    )
    assert (first, second) == ({"returned": None}, {"returned": None})
    assert [each["vm"] for each in listed["returned"]] == [VM, OTHER]
    call(lab, ("detach", OTHER))


@pytest.mark.parametrize(
    ("prepare", "code", "words"),
    [
        (f"truncate -s 33M {IMAGE}", "bad_request", "smaller than its image"),
        (f"truncate -s 1000 {IMAGE}", "bad_request", "whole number of sectors"),
        (f"printf text | dd of={LAYER} conv=notrunc", "bad_request", "neither empty nor a layer"),
        (f"chown bob: {LAYER}", "unauthorized", "is no disk of uid 1000's"),
        (f"truncate -s 0 {LAYER}", "bad_request", "0 bytes"),
        (f"truncate -s 4096 {LAYER}", "operation_failed", "Input/output error"),
    ],
)
def test_what_does_not_fit_is_refused_and_leaves_nothing(lab, prepare, code, words):
    lab.sh(prepare)
    refused, left = ask(lab, ATTACH, ("left",))
    assert refused["refused"] == code
    assert words in refused["message"]
    assert left == {"returned": []}


def test_a_layer_that_is_too_small_is_full_and_stays_so(lab):
    lab.sh(f"truncate -s 1M {LAYER}")
    call(lab, ATTACH, ("node", VM, NODE))
    fill(lab, 2)
    assert_lost(lab, ATTACH)


def test_a_layer_on_a_full_file_system_is_full_and_stays_so(lab):
    lab.sh(
        "truncate -s 24M /home/alice/small; mke2fs -q -O ^has_journal /home/alice/small;"
        "mkdir /mnt/small; mount -o loop /home/alice/small /mnt/small;"
        "truncate -s 64M /mnt/small/layer; chown alice: /mnt/small/layer"
    )
    attach = ("attach", VM, 32 * MIB, IMAGE, "/mnt/small/layer")
    try:
        call(lab, attach, ("node", VM, NODE))
        fill(lab, 30)
        assert_lost(lab, attach)
    finally:
        call(lab, ("detach", VM))
        lab.sh("udevadm settle; umount /mnt/small; rmdir /mnt/small; rm /home/alice/small")


def assert_lost(lab: Machine, attach: tuple[object, ...]) -> None:
    """Now, and when it is attached again: by what the file says, and by the kernel's own word."""
    (listed,) = call(lab, ("list_all",))
    assert listed == [{"vm": VM, "state": "full", "used_bytes": 0, "size_bytes": 0, "in_use": False}]
    unseen = ("attach_unseen", *attach[1:])
    _, refused, listed, refused_by_kernel, listed_then = ask(
        lab, ("detach", VM), attach, ("list_all",), unseen, ("list_all",)
    )
    for refusal in (refused, refused_by_kernel):
        assert refusal["refused"] == "operation_failed"
        assert "was full" in refusal["message"]
    assert (listed, listed_then) == ({"returned": []}, {"returned": []})


def test_detaching_waits_for_who_has_it_open_and_gives_up_in_the_end(lab):
    assert call(lab, ATTACH, ("detach_while_open", VM, 1.5), ("left",))[1:] == [pytest.approx(4, abs=3), []]
    call(lab, ATTACH)
    busy, listed = ask(lab, ("detach_while_open", VM, 600), ("list_all",))
    assert busy["refused"] == "conflict"
    assert busy["hint"] == f"sudo dmsetup info banger-{VM}"
    assert [each["vm"] for each in listed["returned"]] == [VM]


def test_only_what_nobody_has_open_is_abandoned(lab):
    call(lab, ATTACH, ("node", VM, NODE))
    opened = f"mkfifo /run/opened; exec 3<{NODE}; echo > /run/opened; exec sleep 600"
    holder = lab.start(("sh", "-c", opened))
    lab.sh("until test -p /run/opened; do sleep 0.1; done; cat /run/opened; rm /run/opened")
    listed = call(lab, ("detach_abandoned",), ("list_all",))[1]
    assert [each["in_use"] for each in listed] == [True]
    holder.signal(9)
    holder.wait()
    assert call(lab, ("detach_abandoned",), ("list_all",)) == [None, []]


def test_a_helper_that_is_killed_leaves_only_what_is_found_and_detached(lab):
    *killed, whole = call(lab, ("kill_at_each_step", VM, 32 * MIB, IMAGE, LAYER))[0]
    assert [each["killed"] for each in killed] == [True] * 8  # two loops; made, loaded, resumed, twice
    assert [len(each["listed"]) for each in killed] == [0, 0, 0, 1, 1, 1, 1, 1]
    assert (whole["killed"], whole["listed"][0]["size_bytes"]) == (False, 20 * MIB)
    assert [each["left"] for each in (*killed, whole)] == [[]] * 9
