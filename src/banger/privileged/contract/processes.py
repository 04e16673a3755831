"""Who answers, and what is asked of root about processes of the owner's. Standard library only."""

from dataclasses import dataclass

from banger.privileged.contract.base import Done, Request
from banger.privileged.contract.values import refuse

SIGNALS = (2, 3, 9, 15, 18, 19)  # INT QUIT KILL TERM CONT STOP


@dataclass(frozen=True, kw_only=True)
class Greeting:
    """Who answers: the contract's version, the digest of the helper's code, its pid and the uid it serves."""

    version: int
    build: str
    pid: int
    owner: int


@dataclass(frozen=True, kw_only=True)
class Hello(Request[Greeting]):
    """Who are you, and do we speak the same version?"""

    method = "hello"
    result = Greeting


@dataclass(frozen=True, kw_only=True)
class SignalVmm(Request[Done]):
    """Only a process with this start time (clock ticks since boot) that the helper has launched or that runs as the
    owner. `unauthorized` for any other; nothing happens when it is gone."""

    method = "signal_vmm"
    result = Done
    pid: int
    start_time: int
    signal: int

    def validate(self) -> None:
        _validate_process(self.pid, self.start_time)
        if self.signal not in SIGNALS:
            raise refuse(f"signal {self.signal} is not sent to a VMM")


@dataclass(frozen=True, kw_only=True)
class MapIds(Request[Done]):
    """Does newuidmap(1)'s and newgidmap(1)'s work for a daemon that may gain no privileges: in the user namespace which
    this process of the owner's has made, id 0 becomes the owner's, 1 to 65535 those of /etc/subuid and /etc/subgid.
    `unauthorized` for any other process or namespace, `conflict` for one with maps, `unavailable` without such ids."""

    method = "map_ids"
    result = Done
    pid: int
    start_time: int

    def validate(self) -> None:
        _validate_process(self.pid, self.start_time)


def _validate_process(pid: int, start_time: int) -> None:
    if pid <= 1 or start_time <= 0:
        raise refuse(f"{pid} started at {start_time} is not a process")
