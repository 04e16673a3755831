import io
import json
import re
from datetime import UTC, datetime

import pytest
from fake_daemon import DETAILS

from banger.cli.main import report
from banger.cli.output import note, print_json
from banger.cli.progress import Live, Plain
from banger.cli.render import tables
from banger.cli.render.vm import render_details
from banger.client.wire import Failure


def test_a_table_has_no_trailing_blanks():
    assert tables.render_table(("A", "LONG"), [("xyz", "1"), ("y", "")]) == "A    LONG\nxyz  1\ny\n"


@pytest.mark.parametrize(
    "text", ["2025-11-21T06:09:12Z", "1970-01-01T00:00:00.5Z", "2024-02-29T23:59:59Z", "2000-03-01T00:00:00Z"]
)
def test_timestamps_are_those_of_datetime(text):
    expected = datetime.fromisoformat(text[:19]).replace(tzinfo=UTC).timestamp()
    assert tables.parse_timestamp(text) == expected


def test_what_is_no_moment_is_shown_as_it_is():
    assert tables.render_age("soon") == "soon"


@pytest.mark.parametrize(
    ("seconds", "age"), [(5, "5s"), (65, "1m"), (7300, "2h"), (200000, "2d"), (-3, "0s")]
)
def test_ages_are_rough(seconds, age):
    moment = tables.parse_timestamp("2025-11-21T06:09:12Z")
    assert tables.render_age("2025-11-21T06:09:12Z", now=moment + seconds) == age


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.004, "4 ms"),
        (1.23, "1.2 s"),
        (59.94, "59.9 s"),
        (60, "1m00s"),
        (187, "3m07s"),
        (3600, "1h00m"),
        (18120, "5h02m"),
        (86400, "1d00h"),
        (183600, "2d03h"),
    ],
)
def test_durations_read_well(seconds, text):
    assert tables.render_duration(seconds) == text


@pytest.mark.parametrize("size", [0, 1023, 1024, 1536, 10 << 20, 3 << 30, 5 << 40])
def test_sizes_are_those_of_the_daemon(size):
    from banger.base.units import render_size

    assert tables.render_size(size) == render_size(size)


POSTURE = {
    "backend": "qemu",
    "accelerator": "kvm",
    "accelerator_reason": "",
    "network_mode": "user",
    "network_reason": "no helper",
    "storage_driver": "qcow2",
    "memory_backing": "",
}


@pytest.mark.parametrize(
    ("posture", "line"),
    [
        ({}, "runs on:   qemu, kvm"),
        ({"accelerator": "tcg", "accelerator_reason": "no /dev/kvm"}, "runs on:   qemu, tcg (no /dev/kvm)"),
        ({"accelerator": ""}, "runs on:   qemu"),
        ({"backend_reason": "no KVM"}, "runs on:   qemu (no KVM), kvm"),
        (
            {"backend_reason": "X needs KVM: none", "accelerator": "tcg", "accelerator_reason": "none"},
            "runs on:   qemu (X needs KVM: none), tcg",
        ),
        ({"backend": "", "accelerator": "", "backend_reason": "no QEMU"}, "runs on:   no QEMU"),
        ({"jail": "own uid 7"}, "jail:   own uid 7"),
        ({"backend": "", "accelerator": "", "accelerator_reason": "no QEMU"}, "runs on:   no QEMU"),
        ({"backend": "", "accelerator": ""}, None),
        ({"network_reason": ""}, "network:   user, NAT off"),
        ({"network_mode": "", "network_reason": ""}, "network:   NAT off"),
        ({"storage_driver": ""}, "storage:   its own: root 1 MiB, work 2 MiB"),
    ],
)
def test_what_is_not_known_of_a_vm_leaves_no_trace(posture, line):
    lines = render_details({**DETAILS, "posture": POSTURE | posture}).splitlines()
    if line is None:
        assert not [shown for shown in lines if shown.startswith("runs on")]
    else:
        assert line in [re.sub(":  +", ":   ", shown) for shown in lines]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def stage(name, state, duration_ms=None):
    return {"type": "stage", "name": name, "state": state, "started_ms": 0, "duration_ms": duration_ms}


def test_live_progress_redraws_one_line_and_keeps_finished_stages(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    live = Live(stream, 40)
    live.event(stage("boot", "begin"))
    live.event({"type": "detail", "stage": "boot", "text": "waiting\x1b[2J" + "x" * 99})
    live.idle()
    live.event(stage("boot", "end", 1200.0))
    live.event(stage("agent", "begin"))
    live.end(failed=True)
    drawn = stream.getvalue()
    assert "\r\x1b[K✓ boot 1.2 s\n" in drawn
    assert drawn.split("\r\x1b[K")[-1].startswith("✗ agent")
    assert "\x1b[2J" not in drawn
    assert all(len(part) <= 40 for part in drawn.replace("\n", "\r\x1b[K").split("\r\x1b[K"))


def test_a_snapshot_stands_for_the_events_that_were_missed(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    live = Live(stream, 40)
    live.event({"type": "snapshot", "operation": {"stage": "agent"}})
    live.event({"type": "snapshot", "operation": {"stage": None}})
    Plain(stream).event({"type": "snapshot", "operation": {"stage": "agent"}})
    assert stream.getvalue().split("\r\x1b[K")[1].startswith("⠋ agent")


def test_colours_only_without_no_color(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    Live(stream, 80).event(stage("boot", "end", 1.0))
    assert "\x1b[32m✓" in stream.getvalue()


def test_plain_progress_does_not_repeat_details_quickly():
    stream = io.StringIO()
    plain = Plain(stream)
    for count in range(5):
        plain.event({"type": "detail", "stage": "build", "text": f"{count} %"})
    plain.event(stage("build", "end", 61000.0))
    assert stream.getvalue() == "  0 %\n• build … 1m01s\n"


def test_a_guests_text_cannot_drive_the_terminal():
    from banger.cli.output import defuse

    assert defuse("boot\tok\r\n\x1b]0;title\x07\x9bx") == "boot\tok\ufffd\n\ufffd]0;title\ufffd\ufffdx"


EVIL, HARMLESS = "s\x1b]0;x\x07\x9b\u202e", "s\ufffd]0;x\ufffd\ufffd\ufffd"


def test_an_error_cannot_drive_the_terminal(capsys):
    report(Failure("bad_request", f"{EVIL} is odd", hint=f"rm {EVIL}", detail=f"a\n{EVIL}"))
    said = f"banger: {HARMLESS} is odd\n  a\n  {HARMLESS}\nhint: rm {HARMLESS}\n"
    assert capsys.readouterr().err == said


def test_a_remark_and_plain_progress_cannot_either(capsys):
    note(f"first\n{EVIL}")
    stream = io.StringIO()
    Plain(stream).event({"type": "detail", "stage": "build", "text": EVIL})
    assert capsys.readouterr().err == f"first\n{HARMLESS}\n"
    assert stream.getvalue() == f"  {HARMLESS}\n"


def test_json_on_a_terminal_is_the_same_json_in_harmless_letters(monkeypatch):
    value = {"name": EVIL, "far": "\U000e0001", "fine": "Ä 😀"}
    for stream in (io.StringIO(), Terminal()):
        monkeypatch.setattr("sys.stdout", stream)
        print_json(value)
        assert json.loads(stream.getvalue()) == value
        assert "Ä 😀" in stream.getvalue()
    assert all(character.isprintable() or character == "\n" for character in stream.getvalue())
