"""What a real guest uses and serves, and how it is."""

import socket
import time

from tests.support.banger import refused, wait_until

MIB = 1 << 20
SERVER = """
use IO::Socket::INET;
my $server = IO::Socket::INET->new(LocalAddr => '0.0.0.0', LocalPort => 8000, Listen => 9, ReuseAddr => 1) or die $!;
while (my $client = $server->accept) {
    while (defined(my $line = <$client>)) { last if $line =~ /^\\r?$/ }
    print $client "HTTP/1.0 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n";
    close $client;
}
"""


def usage_of(banger, name):
    (usage,) = banger.json("vm", "stats", name)["vms"]
    return usage


def test_a_busy_guest_takes_its_share_of_a_cpu(banger, vm):
    burning = banger.start("vm", "exec", vm, "--", "sh", "-c", "while :; do :; done")
    try:
        wait_until(lambda: usage_of(banger, vm)["cpu_percent"] > 30)
    finally:
        burning.kill()
        burning.wait()
    used = usage_of(banger, vm)
    assert used["cpu_s"] > 1
    assert 64 * MIB < used["memory_bytes"] < 1024 * MIB
    assert used["block_written_bytes"] is not None


def test_what_a_guest_writes_is_the_vms_own(banger, vm):
    before = usage_of(banger, vm)["disk_bytes"]
    banger.guest(vm, "dd", "if=/dev/urandom", "of=/root/grown", "bs=1M", "count=64", "conv=fsync")
    wait_until(lambda: usage_of(banger, vm)["disk_bytes"] - before >= 60 * MIB)
    banger.guest(vm, "rm", "/root/grown")


def counted(banger, vm):
    """Its usage with what the guest itself tells, which a guest that is busy leaves out."""
    deadline = time.monotonic() + 60
    while (told := usage_of(banger, vm))["received_bytes"] is None:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return told


def test_packets_are_counted_from_the_guests_side(banger, vm):
    before = counted(banger, vm)
    port = banger.json("vm", "show", vm)["vm"]["runtime"]["ssh_port"]
    with socket.create_connection(("127.0.0.1", port)) as connection:
        assert connection.recv(4).startswith(b"SSH-")

    def has_grown():
        after = counted(banger, vm)
        return (
            after["received_bytes"] > before["received_bytes"] and after["sent_bytes"] > before["sent_bytes"]
        )

    wait_until(has_grown)


def test_a_web_server_in_the_guest_is_found_and_probed_once_it_is_published(banger, vm):
    serving = banger.start("vm", "exec", vm, "--", "perl", "-e", SERVER)
    try:
        wait_until(lambda: 8000 in [port["port"] for port in banger.json("vm", "ports", vm)["ports"]])
        found = {port["port"]: port for port in banger.json("vm", "ports", vm)["ports"]}
        assert (found[22]["process"], found[22]["service"]) == ("sshd", "ssh")
        assert found[8000]["process"] == "perl"
        assert found[8000]["unreachable"] == "it is not published"
        assert found[8000]["hint"] == f"banger vm publish {vm} 8000:8000"
        with socket.create_server(("127.0.0.1", 0)) as free:
            number = free.getsockname()[1]
        banger.run("vm", "publish", vm, f"{number}:8000")
        (port,) = [port for port in banger.json("vm", "ports", vm)["ports"] if port["port"] == 8000]
        assert (port["service"], port["urls"]) == ("http", [f"http://127.0.0.1:{number}/"])
        assert f"http://127.0.0.1:{number}/" in banger.run("vm", "ports", vm).stdout.decode()
        banger.run("vm", "unpublish", vm, f"{number}:8000")
    finally:
        serving.kill()
        serving.wait()


def test_a_guest_that_is_well_says_so(banger, vm):
    done = banger.run("vm", "health", vm)
    assert b"healthy" in done.stdout
    health = banger.json("vm", "health", vm)
    assert health["healthy"], health
    assert health["ssh"] is True
    assert {each["path"] for each in health["file_systems"]} == {"/", "/root"}
    assert all(0 < each["used_bytes"] < each["size_bytes"] for each in health["file_systems"])
    assert abs(health["clock_offset_s"]) < 2


def test_a_clock_that_is_off_is_told(banger, vm):
    banger.guest(vm, "date", "-s", "2001-01-01")
    try:
        health = banger.json("vm", "health", vm)
        assert health["clock_offset_s"] < -1e8
        assert "behind the host's" in health["warnings"][0]
    finally:
        banger.guest(vm, "date", "-s", f"@{time.time():.0f}")


PAUSE_AGENT = """
for process in /proc/[0-9]*; do
    if grep -qs '^@' $process/cmdline; then agent=${process#/proc/}; fi
done
setsid sh -c "sleep 1; kill -STOP $agent; sleep 20; kill -CONT $agent" >/dev/null 2>&1 &
"""


def test_an_agent_that_does_not_answer_is_unhealthy(banger, vm):
    banger.guest(vm, "sh", "-c", PAUSE_AGENT)
    wait_until(lambda: banger.run("vm", "health", vm, check=False).returncode == 69)
    used = usage_of(banger, vm)  # what the host knows is told all the same
    assert used["memory_bytes"] > 0
    wait_until(lambda: banger.run("vm", "health", vm, check=False).returncode == 0)


def test_stopped_vms_use_their_disk_and_have_no_ports(banger, vm):
    banger.run("vm", "create", "--name", "off", "--no-start")
    used = usage_of(banger, "off")
    assert (used["state"], used.get("cpu_s"), used.get("memory_bytes")) == ("created", None, None)
    assert used["disk_bytes"] > 0
    assert "off" not in [each["name"] for each in banger.json("vm", "stats")["vms"]]
    for command in ("ports", "health"):
        refused(banger, "vm", command, "off", status=69, words="off has never been started")
    banger.run("vm", "delete", "off")
