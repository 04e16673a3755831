"""Hosts and material that are not as they should be: one line, a hint, a status, and everything as it was before.

A VM called `box` is made once and not started again but where a test is about that.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.lab.impostors import build_impostor, render_crashing_kernel
from tests.lab.machine import JAILS, Machine

from banger.vmm.firecracker.programs import VERSION

MANAGED = f"/usr/local/lib/banger/firecracker/{VERSION}"
IMPOSTOR = "/opt/impostor"
UNCHANGED_S = 60
KERNEL = "$(ls -d /home/alice/.local/share/banger/kernels/*/ | head -n 1)vmlinux"


@pytest.fixture(scope="module")
def box(lab: Machine) -> Iterator[dict[str, Any]]:
    lab.banger("vm", "create", "--name", "box", "--memory", "256M")
    lab.banger("vm", "stop", "box")
    yield lab.vm("box") | {"directory": lab.json("vm", "show", "box")["directory"]}
    lab.banger("vm", "delete", "--force", "box")
    assert lab.leftovers() == {}


@contextmanager
def unchanged(lab: Machine) -> Iterator[None]:
    """In the end: a daemon that has started again may try Firecracker in the background."""
    before = lab.leftovers()
    yield
    until = time.monotonic() + UNCHANGED_S
    while (found := lab.leftovers()) != before:
        assert time.monotonic() < until, (found, before)


@contextmanager
def program_in_place(lab: Machine, program: bytes) -> Iterator[None]:
    """Root's configuration names it."""
    lab.sh(f"mkdir -p {IMPOSTOR}; cp {MANAGED}/jailer {IMPOSTOR}")
    lab.put(f"{IMPOSTOR}/firecracker", program, mode=0o755)
    lab.configure(f'vmm = "firecracker"\nfirecracker_bin = "{IMPOSTOR}/firecracker"\n')
    try:
        yield
    finally:
        lab.configure("")


def impostor(directory: Path, *, hangs: bool) -> bytes:
    return build_impostor(directory, version=VERSION, hangs=hangs, real=f"{MANAGED}/firecracker")


@contextmanager
def kernel_in_place(lab: Machine, kernel: bytes) -> Iterator[None]:
    """As large as the real one: a kernel of another size is noticed earlier."""
    path = lab.sh(f"echo {KERNEL}").strip()
    lab.sh(f"mv {path} /home/kernel-aside")
    lab.put(path, kernel, user="alice")
    lab.sh(f"truncate --reference=/home/kernel-aside {path}")
    try:
        yield
    finally:
        lab.sh(f"mv /home/kernel-aside {path}")


def test_a_firecracker_that_is_too_old(lab: Machine, box: dict[str, Any]):
    old = b"#!/bin/sh\necho Firecracker v0.25.2\n"
    with unchanged(lab), program_in_place(lab, old):
        lab.refused("vm", "start", "box", says="0.25.2")
        lab.refused("vm", "create", "--name", "new", says="0.25.2")


def test_a_firecracker_that_is_not_roots(lab: Machine, box: dict[str, Any]):
    with unchanged(lab), program_in_place(lab, lab.get(f"{MANAGED}/firecracker")):
        lab.sh(f"chown alice {IMPOSTOR}/firecracker")
        lab.banger("system", "restart", sudo=True)
        lab.refused("vm", "start", "box", says=IMPOSTOR)


def test_a_firecracker_that_hangs_before_its_socket(lab: Machine, box: dict[str, Any], tmp_path: Path):
    with unchanged(lab), program_in_place(lab, impostor(tmp_path, hangs=True)):
        lab.refused("vm", "start", "box", says="did not answer within")


def test_a_firecracker_that_ends_at_once_is_quoted(lab: Machine, box: dict[str, Any], tmp_path: Path):
    with unchanged(lab), program_in_place(lab, impostor(tmp_path, hangs=False)):
        said = lab.refused("vm", "start", "box", says="ended before the guest")
        assert "no luck today" in said


def test_a_kernel_that_is_none(lab: Machine, box: dict[str, Any]):
    with unchanged(lab), kernel_in_place(lab, b"not a kernel\n" * 400):
        lab.refused("vm", "start", "box", says="vmlinux begins with the wrong bytes", hint="kernel pull")


def test_a_guest_that_dies_as_soon_as_it_has_started(lab: Machine, box: dict[str, Any]):
    with unchanged(lab), kernel_in_place(lab, render_crashing_kernel()):
        lab.refused("vm", "start", "box", says="ended before the guest was ready")


def test_a_disk_that_has_vanished(lab: Machine, box: dict[str, Any]):
    for name, hint in (("work.img", "hint: "), ("root.cow", "banger vm delete box")):
        with unchanged(lab):
            lab.sh(f"mv {box['directory']}/{name} /home/disk-aside")
            try:
                lab.refused("vm", "start", "box", says=name, hint=hint)
            finally:
                lab.sh(f"mv /home/disk-aside {box['directory']}/{name}")


def test_a_map_of_the_same_name_is_not_touched(lab: Machine, box: dict[str, Any]):
    name = f"banger-{box['id']}"
    lab.sh(f"dmsetup create {name} --table '0 8 zero'")
    with unchanged(lab):
        lab.refused("vm", "start", "box", says=name)
        assert "0 8 zero" in lab.sh(f"dmsetup table {name}")
    lab.sh(f"dmsetup remove --retry {name}")


def test_a_jail_left_by_a_vm_of_the_same_id_is_removed(lab: Machine, box: dict[str, Any]):
    """Jailer itself would panic."""
    lab.sh(f"mkdir -p {JAILS}/{box['id']}/root/s; touch {JAILS}/{box['id']}/root/firecracker")
    lab.banger("vm", "start", "box")
    lab.banger("vm", "stop", "box")
    assert lab.sh(f"ls {JAILS}") == ""


def test_kvm_that_is_there_and_cannot_be_used(lab: Machine, box: dict[str, Any]):
    """The device node of a module that is gone, as a host without the processor's support may have it."""
    lab.configure('vmm = "firecracker"\n')
    lab.sh("rmmod kvm_amd; test -e /dev/kvm || mknod -m 660 /dev/kvm c 10 232; chgrp kvm /dev/kvm")
    with unchanged(lab):
        lab.banger("system", "restart", sudo=True)
        lab.refused("vm", "start", "box", says="KVM")
    lab.configure("")
    found = lab.parse(lab.banger("doctor", "--json", check=False))["findings"]
    assert [each for each in found if each["check"] == "acceleration" and "kvm" in each["text"].lower()]
    lab.sh("rm -f /dev/kvm; modprobe kvm_amd; udevadm settle; test -c /dev/kvm")
    lab.configure("")
    lab.banger("vm", "start", "box")
