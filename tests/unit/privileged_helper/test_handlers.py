import os
import subprocess
import sys
from typing import Any

import pytest

from banger.privileged.contract.network import EnsureBridge
from banger.privileged.contract.processes import Hello, SignalVmm
from banger.privileged.contract.requests import REQUESTS
from banger.privileged.contract.values import Refusal
from banger.privileged.helper import handlers as module
from banger.privileged.helper.handlers import Handlers
from banger.privileged.helper.programs import find_program, run_program


def test_every_request_of_the_contract_has_a_method() -> None:
    assert set(module._METHODS) == set(REQUESTS)


def test_a_request_is_validated_here_too() -> None:
    with pytest.raises(Refusal, match="eth0"):
        Handlers(0, "").handle(EnsureBridge(bridge="eth0", address="10.209.0.1/24"), ())


def test_an_error_of_the_kernels_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setitem(module._METHODS, "hello", fail)
    with pytest.raises(Refusal) as refusal:
        Handlers(0, "").handle(Hello(), ())
    assert refusal.value.code == "unavailable"


def test_the_helper_imports_the_standard_library_and_its_contract_only() -> None:
    code = (
        "import sys; before = set(sys.modules)\n"
        "import banger.privileged.helper.__main__\n"
        "print(*{name.split('.')[0] for name in set(sys.modules) - before if name.split('.')[0] not in sys.stdlib_module_names})\n"
        "print(*(name for name in sys.modules if name.startswith('banger.') and not name.startswith('banger.privileged')))"
    )
    said = subprocess.run((sys.executable, "-c", code), capture_output=True, text=True, check=True)
    assert said.stdout == "banger\n\n"


class TestSignals:
    def signal(self, pid: int, start_time: int, owner: int) -> None:
        Handlers(owner, "").handle(SignalVmm(pid=pid, start_time=start_time, signal=18), ())

    @property
    def start_time(self) -> int:
        with open("/proc/self/stat") as file:
            return int(file.read().rpartition(")")[2].split()[19])

    def test_ours_with_the_right_start_time(self) -> None:
        self.signal(os.getpid(), self.start_time, os.getuid())

    @pytest.mark.parametrize("off", [-1, 1, 10**18])
    def test_ours_with_another_start_time(self, off: int) -> None:
        with pytest.raises(Refusal, match="is not the one that was meant"):
            self.signal(os.getpid(), self.start_time + off, os.getuid())

    def test_of_somebody_else(self) -> None:
        with pytest.raises(Refusal, match="is not the owner's"):
            self.signal(os.getpid(), self.start_time, os.getuid() + 1)

    def test_what_cannot_be_a_pid(self) -> None:
        with pytest.raises(Refusal, match="is no process"):
            self.signal(10**30, 1, os.getuid())


class TestPrograms:
    def run(self, *argv: str, stdin: bytes = b"", deadline_s: float = 10) -> Any:
        return run_program(argv, stdin=stdin, deadline_s=deadline_s)

    def test_its_environment_is_clean(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LD_PRELOAD_X", "evil")
        done = self.run("/usr/bin/env")
        assert sorted(line.partition(b"=")[0] for line in done.stdout.splitlines()) == [b"LC_ALL", b"PATH"]

    def test_stdin_status_and_complaint(self) -> None:
        done = self.run("/bin/sh", "-c", "cat; echo one >&2; echo two >&2; exit 3", stdin=b"text")
        assert (done.status, done.stdout, done.complaint) == (3, b"text", "one; two")

    def test_the_deadline(self) -> None:
        with pytest.raises(Refusal, match=r"did not end within 0\.1 s"):
            self.run("/bin/sleep", "30", deadline_s=0.1)

    def test_programs_are_found_in_the_systems_directories_only(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PATH", os.path.dirname(sys.executable))
        assert find_program("sh") == "/usr/bin/sh"
        assert find_program("no-such-program") is None

    def test_a_relative_program_is_a_bug(self) -> None:
        with pytest.raises(AssertionError):
            self.run("sh")


def test_a_jail_that_cannot_be_removed_keeps_nothing_else_from_being_released(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_: object) -> None:
        raise OSError(30, "Read-only file system")

    released = []
    monkeypatch.setattr(module.JailKeeper, "remove_abandoned", fail)
    monkeypatch.setattr(module.snapshots, "detach_abandoned", lambda: released.append("snapshots"))
    monkeypatch.setattr(Handlers, "_release_network", lambda _: released.append("network"))
    with pytest.raises(Refusal, match="Read-only"):
        Handlers(0, "").release_abandoned()
    assert released == ["snapshots", "network"]
