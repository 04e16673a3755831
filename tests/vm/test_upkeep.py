"""VMs that end by themselves, and what is told of the room they take."""

import time

from tests.support.banger import refused


def wait_state(banger, name: str, state: str) -> dict:
    """Upkeep looks every half a minute; the guest takes its time to power off."""
    deadline = time.monotonic() + 240
    while (vm := banger.json("vm", "show", name)["vm"])["state"] != state:
        assert time.monotonic() < deadline, vm["state"]
        time.sleep(2)
    return vm


def test_a_vm_is_stopped_when_its_time_is_over_and_can_be_started_again(banger):
    banger.run("vm", "create", "--name", "short", "--memory", "256M", "--ttl", "5s")
    vm = wait_state(banger, "short", "stopped")
    assert vm["stopped_because"] == "its time to live, 5s, is over"
    (stop,) = [each for each in banger.json("operation", "list")["operations"] if each["kind"] == "vm.stop"]
    assert (stop["subject"], stop["detail"]) == ("short", "its time to live, 5s, is over")
    banger.run("vm", "start", "short", "--ttl", "2h")
    details = banger.json("vm", "show", "short")
    assert details["vm"].get("stopped_because", "") == ""
    assert 7000 < details["ttl_left_s"] <= 7200
    banger.run("vm", "set", "short", "--no-ttl")
    assert banger.json("vm", "show", "short")["vm"].get("ttl") is None
    banger.run("vm", "delete", "--force", "short")


def test_df_and_prune_tell_the_same_story(banger):
    banger.run("vm", "create", "--name", "up", "--memory", "256M")
    banger.run("vm", "create", "--name", "down", "--memory", "256M", "--no-start")
    usage = banger.json("df")
    own = {vm["name"]: vm for vm in usage["vms"]}
    assert own["up"]["reclaimable_bytes"] == 0
    assert own["down"]["reclaimable_bytes"] == own["down"]["exclusive_bytes"] > 0
    assert {"up", "down"} <= {name for image in usage["images"] for name in image["used_by"]}
    verdicts = {each["name"]: each["goes"] for each in banger.json("vm", "prune", "--dry-run")["verdicts"]}
    assert verdicts == {"up": False, "down": True}
    assert banger.json("vm", "prune", "--older-than", "1h", "--yes")["vms"] == []
    assert banger.json("vm", "prune", "--yes")["vms"] == ["down"]
    banger.run("vm", "delete", "--force", "up")


def test_limits_refuse_with_the_key(banger):
    banger.run("vm", "create", "--name", "only", "--memory", "256M", "--no-start")
    banger.run("daemon", "stop")
    file = banger.configure('[limits]\nvms = 1\nmemory_per_vm = "512M"\n')
    refused(banger, "vm", "create", "--memory", "1G", status=64, words="limits.memory_per_vm is 512 MiB")
    refused(banger, "vm", "create", "--memory", "256M", status=75, words="limits.vms is 1")
    banger.run("daemon", "stop")
    file.write_text("[limits]\nvms = 1\nmemory = 3\n")
    refused(banger, "vm", "list", status=64, words="config.toml:3: memory")
    file.unlink()
    banger.run("vm", "delete", "only")
    assert banger.leftovers() == []
