"""What the lab's bench makes of raw figures."""

import pytest
from tools.bench.lab import summarize, summarize_stages, summarize_trace
from tools.bench.lab_table import align, compare_guest, count_equal, render, render_figure
from tools.bench.trace import Sync, Trace

VM = "0123456789ab"


@pytest.mark.parametrize(("inverse", "ratio"), [(True, 4.0), (False, 0.25)])
def test_a_ratio_is_that_of_the_medians(inverse, ratio):
    samples = {"candidate": [9.0, 10.0, 11.0], "reference": [40.0, 39.0, 41.0]}
    assert summarize(samples, inverse=inverse)["ratio"] == ratio


@pytest.mark.parametrize(("references", "drifted"), [([1.0, 1.1, 1.9], False), ([1.0, 2.1, 2.2], True)])
def test_a_reference_that_drifts_is_told(references, drifted):
    samples = {"candidate": [1.0, 1.0, 1.0], "reference": references}
    assert summarize(samples, inverse=False)["drifted"] is drifted


def test_a_stage_that_a_round_did_not_have_counts_as_none():
    assert summarize_stages([{"a": 1.0}, {"a": 3.0, "b": 4.0}]) == {"a": 2.0, "b": 2.0}


def test_what_a_guest_has_synced_is_kept_apart_and_no_id_is_in_the_way():
    daemon = Trace([], [Sync("fdatasync", "/state/store.db-wal", "")])
    helper = Trace([("jailer", "firecracker")], [Sync("fsync", f"/state/{VM}/work.img", "firecracker")])
    assert summarize_trace(daemon, helper) == {
        "processes": ["helper: jailer → firecracker"],
        "syncs": ["daemon: fdatasync /state/store.db-wal"],
        "guest_syncs": ["firecracker: fsync /state/ID/work.img"],
    }


def test_the_tables_say_what_was_met_and_what_was_counted():
    met = summarize({"candidate": [1.0, 1.1], "reference": [50.0, 55.0]}, inverse=True)
    missed = summarize({"candidate": [2.0, 2.0], "reference": [1.0, 1.0]}, inverse=False)
    drifted = summarize({"candidate": [1.0, 1.0], "reference": [1.0, 3.0]}, inverse=False)
    none = {"processes": [], "syncs": [], "guest_syncs": []}
    results = {
        "P1": {"jailed": met, "unjailed": met},
        "P2": {"jailed": missed, "unjailed": drifted},
        "stages": {"jailed": {"preflight": 1.0, "attach root": 123.4}, "unjailed": {"preflight": 12.0}},
        "setup stages": {"jailed": {}, "unjailed": {}},
        "counters": {"jailed": none | {"syncs": ["a", "b", "a"]}, "unjailed": none},
    }
    lines = [" ".join(line.split()) for line in render(results, ("jailed", "unjailed"))]
    assert "jailed 1.05 (1.00-1.10) 52.5 (50.0-55.0) 50.00× met" in lines
    assert "jailed 2.00 (2.00-2.00) 1.00 (1.00-1.00) 2.00× missed" in lines
    assert any(line.startswith("unjailed 1.00") and line.endswith("drifted") for line in lines)
    assert "attach root 123 -" in lines
    assert "files synced by banger 3 0 ≤ 2" in lines
    assert "jailed: 2 × a" in lines


def test_a_guest_is_compared_with_its_own_kernel():
    stages = {"boot guest": 9.0, "guest: init": 4.0, "guest: agent": 1.0}
    assert compare_guest(stages) == 1.25
    assert compare_guest({"boot guest": 9.0}) == 0


def test_columns_are_aligned():
    assert list(align([("what", "n"), ("a", "100")])) == ["what    n", "a     100"]


def test_equal_things_are_counted_in_their_order():
    assert count_equal(["b", "a", "b"]) == ["2 × b", "1 × a"]


@pytest.mark.parametrize(("value", "text"), [(1234.5, "1234"), (12.34, "12.3"), (1.234, "1.23")])
def test_a_figure_has_three_places_that_mean_something(value, text):
    assert render_figure(value) == text
