"""`df`, and what `vm prune --dry-run` explains."""

import json

import pytest

from banger.cli.render.vm import render_details

GIB = 1 << 30
STORED = {"used_by": ["web", "db"], "shared_bytes": GIB, "exclusive_bytes": 0, "reclaimable_bytes": 0}
USAGE = {
    "images": [
        {"name": "debian", "id": "b2", "is_current": True, **STORED},
        {
            "name": "debian",
            "id": "a1",
            "is_current": False,
            "used_by": [],
            "shared_bytes": 0,
            "exclusive_bytes": GIB,
            "reclaimable_bytes": GIB,
        },
    ],
    "kernels": [{"name": "small", "id": "c3", "is_current": True, **STORED, "used_by": ["web"]}],
    "vms": [
        {
            "id": "0" * 12,
            "name": "web",
            "state": "running",
            "shared_bytes": 0,
            "root_bytes": 0,
            "work_bytes": 0,
            "log_bytes": 0,
            "other_bytes": 0,
            "exclusive_bytes": 3 * GIB,
            "growth_bytes": 13 * GIB,
            "reclaimable_bytes": 0,
        }
    ],
    "totals": {
        "images_bytes": 2 * GIB,
        "kernels_bytes": GIB,
        "vms_bytes": 3 * GIB,
        "unfinished_bytes": 0,
        "other_bytes": 0,
        "total_bytes": 6 * GIB,
        "reclaimable_bytes": GIB,
        "growth_bytes": 13 * GIB,
        "free_bytes": 50 * GIB,
    },
}
PRUNED = {
    "vms": ["old"],
    "freed_bytes": GIB,
    "dry_run": True,
    "verdicts": [
        {"id": "1", "name": "web", "goes": False, "why": "it is running", "frees_bytes": 0},
        {"id": "2", "name": "old", "goes": True, "why": "it is stopped, used 3d ago", "frees_bytes": GIB},
    ],
}


def test_df_shows_each_thing_and_the_sums(daemon, banger):
    daemon.answers["disk.usage"] = USAGE
    status, out, _ = banger("df")
    assert status == 0
    assert out.splitlines() == [
        "KIND    NAME       USE      SHARED  OWN    MAY GROW  RECLAIMABLE",
        "image   debian     2 VMs    1 GiB   -      -         -",
        "image   debian@a1  0 VMs    -       1 GiB  -         1 GiB",
        "kernel  small      1 VM     1 GiB   -      -         -",
        "vm      web        running  -       3 GiB  13 GiB    -",
        "",
        "total:            6 GiB (images 2 GiB, kernels 1 GiB, VMs 3 GiB)",
        "reclaimable:      1 GiB",
        "free:             50 GiB",
        "VMs may grow by:  13 GiB",
    ]


def test_df_as_json_is_what_the_daemon_says(daemon, banger):
    daemon.answers["disk.usage"] = USAGE
    assert json.loads(banger("df", "--json")[1]) == USAGE


def test_prune_explains_each_vm_when_nothing_is_to_go_yet(daemon, banger):
    daemon.answers["vm.prune"] = PRUNED
    status, out, err = banger("vm", "prune", "--dry-run", "--label", "team=web", "--older-than", "7d")
    assert (status, err) == (0, "1 GiB would be freed\n")
    assert out.splitlines() == [
        "NAME  VERDICT  FREES  WHY",
        "old   goes     1 GiB  it is stopped, used 3d ago",
        "web   stays    -      it is running",
    ]
    (request,) = [each for each in daemon.requests if each["method"] == "vm.prune"]
    assert request["params"] == {"dry_run": True, "labels": {"team": "web"}, "older_than_s": 604800.0}


def test_pruning_prints_the_names_of_what_went(daemon, banger):
    daemon.answers["vm.prune"] = {**PRUNED, "dry_run": False}
    assert banger("vm", "prune", "--yes") == (0, "old\n", "1 GiB freed\n")


def test_one_that_could_not_be_removed_fails_the_command_when_the_others_are_gone(daemon, banger):
    left = {
        "id": "2" * 12,
        "name": "odd",
        "goes": False,
        "why": "could not be removed: the disk is broken",
        "frees_bytes": 0,
        "failed": True,
    }
    daemon.answers["vm.prune"] = {**PRUNED, "dry_run": False, "verdicts": [*PRUNED["verdicts"], left]}
    assert banger("vm", "prune", "--yes") == (
        71,
        "old\n",
        "1 GiB freed\nbanger: odd could not be removed: the disk is broken\n",
    )
    assert banger("vm", "prune", "--yes", "--json")[0] == 71


@pytest.mark.parametrize("words", [["--ttl", "2"], ["--ttl", "two hours"], ["--ttl"]])
def test_what_is_no_time_to_live_is_refused(daemon, banger, words):
    status, out, err = banger("vm", "create", *words)
    assert (status, out) == (64, "")
    assert "--ttl" in err
    assert daemon.requests == []


def test_a_vm_without_a_command_is_temporary_only_with_a_time_to_live(daemon, banger):
    daemon.answers["vm.create"] = {"vm": {"id": "1", "name": "web"}}
    assert banger("vm", "run", "-d", "--rm")[0] == 64
    assert banger("vm", "run", "-d", "--rm", "--ttl", "1h30m")[:2] == (0, "web\n")
    (request,) = [each for each in daemon.requests if each["method"] == "vm.create"]
    assert (request["params"]["ttl_s"], request["params"]["ephemeral"]) == (5400.0, True)


def make_details(**changes):
    vm = {
        "id": "1",
        "name": "web",
        "state": "running",
        "created_at": "2026-01-01T00:00:00.000Z",
        "spec": {
            "image": "i",
            "kernel": "k",
            "vcpus": 1,
            "memory_mib": 512,
            "disk_size_bytes": GIB,
            "system_overlay_size_bytes": GIB,
        },
        **changes.pop("vm", {}),
    }
    posture = dict.fromkeys(
        (
            "backend",
            "accelerator",
            "accelerator_reason",
            "network_mode",
            "network_reason",
            "storage_driver",
            "memory_backing",
        ),
        "",
    )
    use = {"root_bytes": 0, "work_bytes": 0}
    return {"vm": vm, "posture": posture, "disk_use": use, "directory": "/vms/1", **changes}


def test_show_says_what_is_left_of_a_time_to_live():
    ttl = {"seconds": 7200.0, "since": {}}
    assert "time to live:  2h00m, 1h00m left\n" in render_details(
        make_details(vm={"ttl": ttl}, ttl_left_s=3600.0)
    )
    assert "time to live:  2h00m\n" in render_details(make_details(vm={"ttl": ttl, "state": "stopped"}))
    assert "time to live" not in render_details(make_details())


def test_show_says_why_a_vm_was_stopped_that_nobody_stopped():
    why = "nobody has used it for 2h (auto_stop_stale_after)"
    text = render_details(make_details(vm={"state": "stopped", "stopped_because": why}))
    assert f"stopped: {why}\n" in text
