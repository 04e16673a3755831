import contextlib
import os
import stat

import pytest

from banger.api.system import DoctorRun
from banger.base.problem import unavailable
from banger.services.checks import image_tools, service
from banger.services.checks.contract import CheckSurroundings, Verdict


async def find(around: CheckSurroundings) -> dict:
    findings = (await service.CheckService(around).run(DoctorRun())).findings
    assert [finding.check for finding in findings] == list(service.CHECKS)
    return {finding.check: finding for finding in findings}


async def test_what_works_passes_and_missing_material_is_only_a_warning(around):
    found = await find(around)
    assert found["vmm"].verdict == "pass"
    assert found["guest program"].verdict == "pass"
    assert found["own posture"].verdict == "pass"
    assert {found[name].verdict for name in ("network", "forwarding", "names", "root helper")} == {"pass"}
    assert found["kernel and image"].verdict == "warn"
    assert "banger image build" in found["kernel and image"].fix


async def test_a_missing_vmm_fails_with_its_fix_and_nothing_is_said_of_acceleration(around):
    async def missing():
        return Verdict(False, "QEMU is not installed", "sudo apt-get install qemu-system-x86")

    async def untried():
        return None

    found = await find(around._replace(try_vmm=missing, try_accelerator=untried))
    assert (found["vmm"].verdict, found["vmm"].fix) == ("fail", "sudo apt-get install qemu-system-x86")
    assert found["acceleration"].text.startswith("not tried")


async def test_emulation_is_a_warning_with_the_reason(around):
    async def no():
        return Verdict(False, "no module")

    finding = (await find(around._replace(try_accelerator=no)))["acceleration"]
    assert (finding.verdict, "no module" in finding.text) == ("warn", True)


@pytest.mark.parametrize("content", [None, b"#!/bin/sh\n"])
async def test_a_guest_program_that_is_none_fails(around, content):
    around.guest_program.unlink()
    if content is not None:
        around.guest_program.write_bytes(content)
    assert (await find(around))["guest program"].verdict == "fail"


async def test_an_open_runtime_directory_fails_with_the_chmod_that_closes_it(around):
    os.chmod(around.paths.runtime, 0o755)
    finding = (await find(around))["own posture"]
    assert finding.verdict == "fail"
    assert finding.fix == f"chmod 0700 {around.paths.runtime}"


async def test_checks_change_nothing(around, tmp_path):
    def photograph():
        return {
            p: (s.st_mode, s.st_mtime_ns)
            for p in tmp_path.rglob("*")
            if (s := p.lstat()) and not stat.S_ISSOCK(s.st_mode)
        }

    before = photograph()
    await find(around)
    assert photograph() == before


async def test_a_check_that_cannot_be_made_is_a_finding(around, monkeypatch):
    async def broken(_):
        raise PermissionError(13, "Permission denied", "/proc/meminfo")

    monkeypatch.setitem(service.CHECKS, "memory", broken)
    finding = (await find(around))["memory"]
    assert finding.verdict == "fail"
    assert "/proc/meminfo" in finding.text


@pytest.mark.parametrize("ids", [True, False])
async def test_the_way_to_build_images_is_tried_as_a_build_takes_it(around, monkeypatch, ids):
    @contextlib.asynccontextmanager
    async def open_root():
        if not ids:
            raise unavailable("alice has no ids", hint="sudo usermod alice")
        yield ("/usr/bin/nsenter", "--")

    monkeypatch.setattr(os, "getuid", lambda: 1000)
    monkeypatch.setattr(image_tools, "find_tool", lambda name: name)
    monkeypatch.setattr(around.ownership, "open_root", open_root)
    finding = await image_tools.check(around)
    if ids:
        assert (finding.verdict, finding.fix) == ("pass", None)
    else:
        assert (finding.verdict, finding.fix) == ("warn", "sudo usermod alice")
        assert finding.text == "images cannot be built without root: alice has no ids"
