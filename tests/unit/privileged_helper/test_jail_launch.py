from banger.privileged.helper.jail_launch import plan_argv
from banger.privileged.helper.jail_place import uid_of
from banger.privileged.helper.vmm_programs import VmmPrograms

VM = "0123456789ab"
PROGRAMS = VmmPrograms("/opt/firecracker", "/opt/jailer", "1.12.1")


def test_the_command_line_of_jailer() -> None:
    assert plan_argv(PROGRAMS, VM, "/base/jails", ("--cgroup-version", "2")) == (
        "/opt/jailer",
        *("--id", VM),
        *("--exec-file", "/opt/firecracker"),
        *("--uid", "2043906475", "--gid", "2043906475"),
        *("--chroot-base-dir", "/base/jails"),
        *("--cgroup-version", "2"),
        *("--resource-limit", "no-file=4096"),
        "--",
        *("--api-sock", "s/api.sock"),
        *("--log-path", "s/vmm.log", "--level", "Info"),
        *("--metrics-path", "s/metrics.fifo"),
    )


def test_a_uid_follows_from_the_vm_and_is_nobodys() -> None:
    assert uid_of("000000000000") == 0x70000000
    assert uid_of(f"{0xFFE0000 - 1:012x}") == 0x7FFDFFFF  # systemd has a range behind it
    assert uid_of(VM) == 0x70000000 + int(VM, 16) % 0xFFE0000
