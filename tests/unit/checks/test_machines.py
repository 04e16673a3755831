"""What the doctor says of Firecracker, its jail and root disks: what runs, why nothing better, and the command."""

import subprocess
from pathlib import Path

import pytest
from tests.unit.checks.conftest import Driver

from banger.base.problem import unavailable
from banger.model.config import Config
from banger.model.storage import StorageDriver
from banger.privileged.contract.base import Reply
from banger.privileged.contract.machines import InspectMachines, MachineSupport
from banger.services.checks import firecracker, jail, storage
from banger.services.checks.contract import Verdict
from banger.storage.choose import Storage


class Root:
    kind = "helper"

    def __init__(self, jail_reason="", snapshot_reason=""):
        self.support = MachineSupport(
            snapshot_reason=snapshot_reason,
            snapshot_hint="sudo modprobe dm_snapshot",
            jail_reason=jail_reason,
            jail_hint="sudo banger setup firecracker",
            firecracker="/usr/local/lib/banger/firecracker/1.12.1/firecracker",
            firecracker_version="1.12.1",
        )

    async def call(self, request, descriptors=()):
        assert isinstance(request, InspectMachines)
        return Reply(self.support)


@pytest.fixture
def helped(around):
    return around._replace(config=Config(), privileged=Root())


async def missing():
    return Verdict(False, "Firecracker is not installed", "sudo banger setup firecracker")


async def test_a_firecracker_that_runs_guests_passes_with_its_words(helped):
    finding = await firecracker.check(helped)
    assert (finding.verdict, finding.text) == ("pass", "it works")


@pytest.mark.parametrize(("vmm", "verdict"), [("auto", "warn"), ("firecracker", "fail"), ("qemu", "pass")])
async def test_a_missing_firecracker_is_as_bad_as_the_configuration_makes_it(helped, vmm, verdict):
    finding = await firecracker.check(helped._replace(config=Config(vmm=vmm), try_firecracker=missing))
    assert finding.verdict == verdict
    if vmm != "qemu":
        assert finding.fix == "sudo banger setup firecracker"
        assert "Firecracker is not installed" in finding.text


async def test_the_doctor_sends_nobody_to_the_doctor(helped):
    async def no_kvm():
        return Verdict(False, "Firecracker needs KVM: /dev/kvm is missing", "banger doctor")

    finding = await firecracker.check(helped._replace(try_firecracker=no_kvm))
    assert (finding.verdict, finding.fix) == ("warn", None)


async def test_a_jail_passes_with_the_program_that_root_runs(helped):
    finding = await jail.check(helped)
    assert finding.verdict == "pass"
    assert "Firecracker 1.12.1, /usr/local/lib/banger/firecracker/1.12.1/firecracker" in finding.text


@pytest.mark.parametrize(("vmm", "verdict"), [("auto", "warn"), ("firecracker", "fail")])
async def test_a_jail_that_cannot_be_made_is_told_with_its_reason_and_command(helped, vmm, verdict):
    reason = "this host has cgroups of version 1 only"
    finding = await jail.check(helped._replace(config=Config(vmm=vmm), privileged=Root(jail_reason=reason)))
    assert (finding.verdict, finding.fix) == (verdict, "sudo banger setup firecracker")
    assert finding.text == f"Firecracker cannot be jailed: {reason}"


async def test_a_jail_that_was_switched_off_is_a_warning_whatever_root_could_do(helped):
    finding = await jail.check(helped._replace(config=Config(jailer_enabled=False)))
    assert finding.verdict == "warn"
    assert finding.text.startswith("Firecracker runs as you, unjailed")
    edit, _, rest = finding.fix.partition(" && ")
    assert rest == "banger daemon restart"
    file = Path(helped.paths.config_file)
    file.write_text("jailer_enabled = false\nlog_level = 'debug'\n")
    subprocess.run(edit, shell=True, check=True)
    assert file.read_text() == "log_level = 'debug'\n"


@pytest.mark.parametrize("change", [{"privileged": None}, {"config": Config(vmm="qemu")}])
async def test_where_nothing_would_be_jailed_nothing_is_wrong(helped, change):
    finding = await jail.check(helped._replace(**change))
    assert (finding.verdict, finding.text[:8]) == ("pass", "not used")


async def test_the_driver_of_new_vms_is_told_and_why_the_others_are_not(helped):
    finding = await storage.check(helped)
    assert (finding.verdict, finding.text) == (
        "pass",
        "qcow2 for new VMs; no root helper is installed; reflink would work",
    )


async def test_a_copy_of_the_image_for_each_vm_is_a_warning_with_the_first_way_out(helped):
    async def copy():
        return StorageDriver.COPY

    drivers = [Driver(StorageDriver.SNAPSHOT, "no target"), Driver(StorageDriver.REFLINK, "ext4 cannot")]
    finding = await storage.check(helped._replace(choose_storage=copy, storage=Storage("auto", drivers)))
    assert (finding.verdict, finding.fix) == ("warn", "sudo mend dm-snapshot")
    assert "; no target; ext4 cannot; " in finding.text


async def test_no_driver_at_all_fails(helped):
    async def none():
        raise unavailable("the named one cannot work", hint='set storage_driver = "auto"')

    finding = await storage.check(helped._replace(choose_storage=none))
    assert (finding.verdict, finding.fix) == ("fail", None)
    assert finding.text == 'no VM can be created: the named one cannot work (set storage_driver = "auto")'


async def test_a_driver_of_the_configurations_choice_is_called_that(helped):
    finding = await storage.check(helped._replace(config=Config(storage_driver="qcow2")))
    assert finding.text.startswith("qcow2 for new VMs, as the configuration says; ")
