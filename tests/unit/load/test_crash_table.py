"""The table of crashes: points in order, neighbours together, nothing published that is wrong."""

import json

import pytest
from tools.crash_table import Run, merge_points, read_runs, render_page


def make_run(tier="fake", kind="jailed", killed="daemon", problems=None, **points):
    return Run(tier, kind, "start", killed, points, problems or {})


def test_points_of_one_world_only_stand_behind_their_predecessor_there():
    assert merge_points([["a", "b", "c"], ["a", "x", "c"], ["y"]]) == ["y", "a", "x", "b", "c"]


def test_neighbours_with_the_same_outcome_share_a_row():
    fake = make_run(a="stopped", b="stopped", c="running, same boot")
    qemu = make_run(tier="QEMU", kind="plain", c="running, same boot")
    page = render_page([fake, qemu])
    assert "## start: the daemon is killed" in page
    assert "| a | b | 2 | stopped | – |" in page
    assert "| c |  | 1 | running, same boot | running, same boot |" in page
    assert "4 points in 2 runs" in page


def test_what_is_not_as_it_should_be_is_told_and_not_published():
    with pytest.raises(SystemExit, match="start, daemon killed a: a jail is left"):
        render_page([make_run(a="stopped", problems={"a": ["a jail is left"]})])


def test_results_are_read_as_the_runs_write_them(tmp_path):
    points = [{"point": "a", "outcome": "gone", "problems": []}]
    content = {"tier": "fake", "kind": "plain", "operation": "start", "killed": "vmm", "points": points}
    (tmp_path / "x.json").write_text(json.dumps(content))
    assert read_runs(tmp_path) == [make_run(kind="plain", killed="vmm", a="gone")]
