"""A way to root that makes jails: the installed helper's, or its code in this process on directories of a test's."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
from tests.support.firecracker import TIER, get_firecracker
from tests.support.tiers import skip_or_fail

from banger.base.paths import ROOT_SOCKET
from banger.base.problem import Problem
from banger.privileged.client import HelperClient
from banger.privileged.contract.base import Privileged, Reply, Request
from banger.privileged.contract.machines import InspectMachines, MachineSupport
from banger.privileged.helper import jail_place, vmm_programs
from banger.privileged.helper.handlers import Handlers
from banger.privileged.helper.jail_place import JailPlace
from banger.privileged.helper.jails import JailKeeper
from banger.privileged.helper.residents import Residents
from banger.privileged.inprocess import InProcess

R = TypeVar("R")
VERSION = "1.12.1"


class JailingRoot(InProcess):
    """The helper's own code, with jails below a directory of the test's and without cgroups. Notes what is asked, and
    fails where it is told to, with nothing done. Its end takes nothing away: it has no bridge to look after."""

    def __init__(self, directory: Path, patch: pytest.MonkeyPatch, owner: int = 0) -> None:
        super().__init__(directory / "lock" / "root.lock")
        self._handlers = Handlers(owner=owner, build=self.kind)
        programs = get_firecracker()
        managed = directory / "programs"
        (managed / VERSION).mkdir(parents=True, exist_ok=True)
        for program in (programs.firecracker, programs.jailer):
            shutil.copy(program, managed / VERSION)
        self.base = directory / "root" / "jails"
        patch.setattr(vmm_programs, "MANAGED", str(managed))
        patch.setattr(jail_place, "BASE", str(self.base))
        self._handlers._jails = JailKeeper(JailPlace(), Residents())
        self.support = MachineSupport(
            snapshot_reason="",
            snapshot_hint="",
            jail_reason="",
            jail_hint="",
            firecracker=str(managed / VERSION / "firecracker"),
            firecracker_version=VERSION,
        )
        self.calls: list[str] = []
        self.failures: dict[str, Problem] = {}

    async def call(self, request: Request[R], descriptors: Sequence[int] = ()) -> Reply[R]:
        self.calls.append(request.method)
        if problem := self.failures.pop(request.method, None):
            raise problem
        if isinstance(request, InspectMachines):
            reply: Reply[Any] = Reply(self.support)
            return reply
        return await super().call(request, descriptors)

    @property
    def left(self) -> list[str]:
        """What there is of jails."""
        jails = self.base / "firecracker"
        return sorted(path.name for path in jails.iterdir()) if jails.exists() else []

    def forget(self) -> None:
        """As a helper that is killed and started again: what it held is closed, what it launched lives on."""
        self._handlers._jails.close()
        self._handlers._jails = JailKeeper(JailPlace(), Residents())

    async def close(self) -> None:
        self._handlers.close()
        self._thread.shutdown()
        if self._held is not None:
            os.close(self._held)
            self._held = None


def make_jailing_root(directory: Path, patch: pytest.MonkeyPatch, *, installed: bool) -> Privileged:
    if installed:
        return HelperClient(Path(ROOT_SOCKET)) if Path(ROOT_SOCKET).exists() else InProcess()
    if os.getuid() != 0:
        skip_or_fail("jails need root", tier=TIER)
    directory.chmod(0o755)
    return JailingRoot(directory, patch)
