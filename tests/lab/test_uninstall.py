"""What `system uninstall` leaves of an installation that has been used: alice's own data, and nothing on the host."""


def test_uninstall_is_refused_while_a_vm_runs_and_leaves_nothing_afterwards(lab):
    lab.banger("vm", "run", "-d", "--name", "web", "--nat", "--publish", "8080:80")
    refused = lab.banger("system", "uninstall", sudo=True, check=False)
    assert refused.status != 0
    assert "banger vm stop" in refused.stderr
    assert lab.guest("web", "hostname") == "web\n"

    lab.banger("vm", "stop", "web")
    lab.banger("system", "uninstall", sudo=True)
    left = lab.traces()
    assert set(left) == {"vms", "files"}  # the stopped VM, which is alice's
    assert left["files"] == ["/usr/local/lib/banger"]  # Firecracker, which goes with a purge
    assert lab.sh("systemctl list-units --failed --no-legend --no-pager") == ""
    assert lab.sh("nft list ruleset") == ""
    assert "br-banger" not in lab.sh("resolvectl domain")


def test_it_can_be_installed_again_and_finds_the_vm(lab):
    lab.banger("system", "install", "--owner", "alice", sudo=True)
    lab.banger("vm", "start", "web")
    assert lab.guest("web", "hostname") == "web\n"
    lab.banger("vm", "delete", "--force", "web")


def test_a_purge_leaves_nothing_of_the_owners_either(lab):
    lab.banger("system", "uninstall", "--purge", "--yes", sudo=True)
    assert lab.traces() == {}
    assert lab.sh("find /home/alice -path '*/.*' -name '*banger*'") == ""
