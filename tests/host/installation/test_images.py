"""Images are built in the daemon's sandbox: it can run no newuidmap there, so the helper maps the ids."""

import json
import subprocess
from urllib.parse import urlsplit

import pytest
from tests.host.installation.relay import relayed
from tests.host.installation.test_systemd import give_ids, install

IMAGES = "/home/alice/.local/share/banger/images"
# What an owner cannot give away without ids: owners, groups, a set-user-ID bit, a capability of a file's.
LOOK = (
    "stat --format='%u:%g %a' /etc/shadow /usr/bin/sudo /var/mail && "
    'python3 -c \'import os; print(os.getxattr("/usr/bin/ping", "security.capability").hex())\''
)


def find_mirrors() -> set[str]:
    """Hosts that this machine's own apt fetches from by plain HTTP, and where mmdebstrap looks for security updates
    by itself, which is beside them."""
    told = subprocess.run(
        ("apt-get", "indextargets", "--format", "$(SITE)"), capture_output=True, text=True, check=True
    ).stdout.split()
    hosts = {host for url in told if urlsplit(url).scheme == "http" and (host := urlsplit(url).hostname)}
    return hosts | {f"security.{host.partition('.')[2]}" for host in hosts}


def image_tools(machine):
    findings = json.loads(machine.alices_banger("doctor", "--json", check=False).stdout)["findings"]
    found = next(each for each in findings if each["check"] == "image tools")
    return found["verdict"], found["text"], found.get("fix")


def make_archive(machine):
    """A userland of a few files, with owners of their own."""
    machine.run("mkdir", "-p", "/tmp/u/etc", "/tmp/u/root", "/tmp/u/sbin")
    machine.run("cp", "/bin/true", "/tmp/u/sbin/init")
    machine.run(
        "sh", "-c", "echo x > /tmp/u/etc/shadow; chown 0:42 /tmp/u/etc/shadow; chown 33:33 /tmp/u/sbin"
    )
    machine.run("tar", "-C", "/tmp/u", "-cf", "/tmp/root.tar", ".")


def owners(machine, image, *paths):
    disk = f"{IMAGES}/{image}/rootfs.ext4"
    said = [machine.run("debugfs", "-R", f"stat {path}", disk).stdout.split() for path in paths]
    return [(words[words.index("User:") + 1], words[words.index("Group:") + 1]) for words in said]


def test_an_owner_without_ids_gets_them_as_doctor_says_and_builds(machine):
    install(machine)
    make_archive(machine)
    verdict, text, fix = image_tools(machine)
    assert verdict == "warn"
    assert text == (
        "images cannot be built without root: alice has no range of 65536 subordinate ids in /etc/subuid"
    )
    refused = machine.alices_banger("image", "build", "tiny", "--from-tar", "/tmp/root.tar", check=False)
    assert refused.returncode == 69
    assert f"hint: {fix}\n" in refused.stderr
    assert machine.run("ls", "-A", IMAGES).stdout == ".lock@tiny\n"
    machine.run(*fix.removeprefix("sudo ").split())
    assert image_tools(machine) == ("pass", "kernels and images are built in a user namespace", None)
    machine.alices_banger("image", "build", "tiny", "--from-tar", "/tmp/root.tar")
    assert owners(machine, "tiny", "/etc/shadow", "/sbin", "/etc") == [("0", "42"), ("33", "33"), ("0", "0")]


def test_what_a_killed_build_has_left_to_other_owners_is_swept(machine):
    give_ids(machine)
    install(machine)
    make_archive(machine)
    machine.alices_banger("image", "build", "tiny", "--from-tar", "/tmp/root.tar")
    left = f"{IMAGES}/.building@tiny@0123abcd"
    machine.alice("mkdir", "-p", f"{left}/tree")
    machine.run(
        "sh", "-c", f"mkdir {left}/tree/a && touch {left}/tree/a/b && chown -R 1000032:1000032 {left}/tree/a"
    )
    machine.run("chmod", "0700", f"{left}/tree/a")
    machine.run("systemctl", "kill", "--signal=KILL", "banger")
    machine.banger("system", "restart")
    machine.run("timeout", "30", "sh", "-c", f"while [ -e {left} ]; do sleep 0.1; done")
    assert image_tools(machine)[0] == "pass"


def test_without_the_helper_doctor_says_that_it_is_missing(machine):
    give_ids(machine)
    install(machine)
    machine.run("systemctl", "stop", "banger-root")
    assert image_tools(machine) == (
        "warn",
        "images cannot be built without root: no root helper is installed",
        "sudo banger system install",
    )


@pytest.mark.timeout(900)
def test_the_first_vm_of_a_fresh_installation(machine):
    """Kernel and image are made on the way: a minute, by this host's own apt."""
    give_ids(machine)
    install(machine)
    with relayed(machine, *find_mirrors()):
        machine.alices_banger("vm", "create", "--name", "a", "--memory", "256M", timeout=800)
    assert machine.alices_banger("vm", "exec", "a", "--", "sh", "-c", LOOK).stdout.splitlines() == [
        "0:42 640",
        "0:0 4755",
        "0:8 2775",
        "0100000200200000000000000000000000000000",
    ]
    assert machine.run("find", "/tmp", "/var/tmp", "-name", "mmdebstrap*").stdout == ""
    machine.alices_banger("vm", "delete", "--force", "a")
