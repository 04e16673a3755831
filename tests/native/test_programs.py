"""The programs that were obtained run, and are the pinned ones."""

import subprocess

from tests.support.firecracker import DIRECTORY, get_firecracker

from banger.vmm.firecracker.programs import VERSION, get_program, read_version


async def test_what_was_obtained_is_found_in_the_managed_directory_and_runs(firecracker):
    program = get_program(None, DIRECTORY)
    assert program == str(firecracker)
    assert await read_version(program) == VERSION


def test_the_jailer_came_with_it():
    jailer = get_firecracker().jailer
    said = subprocess.run((str(jailer), "--version"), capture_output=True, text=True, check=True).stdout
    assert f"v{VERSION}" in said
