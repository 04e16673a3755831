"""One id through the command line, the daemon's log and the helper's log."""

import json

from tests.host.world import World
from tests.support.banger import refused


def read_daemon_log(world: World, op: str) -> list[dict[str, object]]:
    records = [json.loads(line) for line in world.user.log.read_text().splitlines()]
    return [record for record in records if record.get("op") == op]


def test_the_id_of_a_command_is_in_the_logs_of_daemon_and_helper(world: World) -> None:
    user = world.user
    begun = user.run("vm", "create", "-d", "--op", "nightly-7", "--memory", "256M", "web")
    assert begun.stdout.decode() == "nightly-7\n"
    watched = user.json("operation", "watch", "nightly-7")
    assert (watched["state"], watched["object_id"]) == ("succeeded", user.vm("web")["id"])
    messages = [record["message"] for record in read_daemon_log(world, "nightly-7")]
    assert messages[0] == "vm.create begins"
    assert messages[-1] == "vm.create succeeded"
    asked = {call["method"] for call in world.helper.calls() if call.get("op") == "nightly-7"}
    assert asked, "the helper was asked for nothing in this operation's name"

    again = user.run("vm", "create", "--op", "nightly-7", "--memory", "256M", "web")
    assert again.stdout.decode() == "web\n"
    assert [record["message"] for record in read_daemon_log(world, "nightly-7")].count(
        "vm.create begins"
    ) == 1
    text = refused(user, "vm", "create", "--op", "nightly-7", "other", status=75, words="(nightly-7)")
    assert "banger operation show nightly-7" in text

    refused(user, "vm", "start", "--op", "nightly-8", "nowhere", status=66, words="(nightly-8)")
    (record,) = read_daemon_log(world, "nightly-8")
    assert record["code"] == "not_found"

    user.run("vm", "delete", "--op", "nightly-9", "--force", "web")
    assert {call["method"] for call in world.helper.calls() if call.get("op") == "nightly-9"}
