"""Work inside a guest of the installed banger, on Firecracker in a jail and on the bridge: a repository in and back,
a session that outlives the daemon, files, and ssh by name."""

import json

import pytest
from tests.lab.machine import Machine
from tools.lab.recipe import OWNER
from tools.lab.stages import BANGER

REPOSITORY = f"/home/{OWNER}/repo"
CLONE = f"""
mkdir -p {REPOSITORY}/src && cd {REPOSITORY}
git init -q -b main && git config user.name Alice && git config user.email alice@example.org
printf 'test:\\n\\t@grep -q changed src/a.txt && echo tests pass\\n' > Makefile
echo hello > src/a.txt
git add -A && git commit -qm first
echo changed >> src/a.txt
echo secret > .env
"""


@pytest.fixture(scope="module")
def web(lab: Machine) -> str:
    lab.sh(CLONE, user=OWNER)
    done = lab.banger("vm", "run", "--name", "web", REPOSITORY, "--", "make", "test", timeout_s=300)
    assert done.stdout == "tests pass\n", str(done)
    return "web"


def git(lab: Machine, *words: str) -> str:
    return lab.run("git", "-C", REPOSITORY, *words, user=OWNER).stdout


def test_what_is_not_tracked_stays_home(lab: Machine, web: str):
    assert lab.vm(web)["runtime"]["backend"] == "firecracker"
    assert lab.guest(web, "pwd") == "/root/repo\n"
    assert lab.guest(web, "git", "status", "--short") == " M src/a.txt\n"
    assert lab.guest(web, "ls", "-A").split() == [".git", "Makefile", "src"]


def test_work_comes_back(lab: Machine, web: str):
    lab.guest(web, "sh", "-ec", "echo guest > b.txt; git add b.txt; git commit -qm guest; echo new > c.txt")
    report = lab.json("workspace", "pull", web)
    assert git(lab, "log", "--format=%s", "refs/banger/web/main").splitlines() == ["guest", "first"], report
    lab.sh(f"cd {REPOSITORY} && {BANGER} workspace export {web} | git apply", user=OWNER)
    assert git(lab, "status", "--short").splitlines() == [" M src/a.txt", "?? .env", "?? b.txt", "?? c.txt"]


def test_a_session_outlives_the_daemon(lab: Machine, web: str):
    lab.banger("session", "start", web, "-i", "--name", "count", "--", "sh", "-c", "echo one; read line")
    pid = lab.sh("systemctl show banger --property=MainPID --value").strip()
    lab.run("kill", "-KILL", pid)
    lab.wait_ready()
    lab.wait_banger("vm", "exec", web, "--", "true", holds=lambda done: done.status == 0)
    (session,) = lab.json("session", "list", web)["sessions"]
    assert session["state"] == "running"
    assert lab.banger("session", "logs", "web/count").stdout == "one\n"
    lab.banger("session", "kill", "web/count")
    lab.banger("session", "rm", "--force", "web/count")


def test_files_go_both_ways(lab: Machine, web: str):
    lab.banger("vm", "cp", f"{REPOSITORY}/src", f"{web}:/root/copy")
    lab.banger("vm", "cp", f"{web}:/root/copy", f"/home/{OWNER}/back")
    assert lab.sh(f"diff -r {REPOSITORY}/src /home/{OWNER}/back && echo same") == "same\n"


def test_ssh_by_name(lab: Machine, web: str):
    """By our block in the user's own configuration, on the bridge, with a host key that is known beforehand."""
    lab.banger("ssh-config", "--install")
    assert lab.run("ssh", f"{web}.vm", "hostname", user=OWNER).stdout == f"{web}\n"
    lab.banger("ssh-config", "--uninstall")


def test_nothing_is_left(lab: Machine, web: str):
    lab.banger("vm", "delete", "--force", web)
    assert json.loads(lab.banger("session", "list", "--json").stdout)["sessions"] == []
    assert lab.leftovers() == {}
