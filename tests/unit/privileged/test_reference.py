"""The reference of the helper's protocol names every method with every field, and no other."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from banger.privileged.contract.base import DESCRIPTORS_MAX, MESSAGE_BYTES_MAX, VERSION
from banger.privileged.contract.machines import ACTIVE, DISK_KINDS, FULL
from banger.privileged.contract.network import GUESTS_MAX, TAPS_MAX
from banger.privileged.contract.processes import SIGNALS
from banger.privileged.contract.requests import REQUESTS
from banger.privileged.contract.values import Guest, Policy, PublishedPort

PAGE = Path(__file__).parents[3].joinpath("docs/reference/root-helper.md").read_text("utf-8")


def rows() -> dict[str, list[str]]:
    """The cells of the table of methods, by method."""
    section = PAGE.partition("## Methods\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    table = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return {cells[0].strip(" `"): cells[1:] for cells in table}


def words(cell: str) -> set[str]:
    return set(re.findall(r"`(\w+)`", cell))


def test_every_method_has_a_row_and_there_are_no_others():
    assert list(rows()) == list(REQUESTS)


@pytest.mark.parametrize("method", REQUESTS)
def test_a_row_names_the_params_and_the_fields_of_the_result(method):
    request = REQUESTS[method]
    params, result, _ = rows()[method]
    assert words(params) == {field.name for field in fields(request)}
    assert {field.name for field in fields(request.result)} <= words(result)
    assert bool(re.search("; (a socket for each|.*descriptors)", params)) == (request.descriptors.stop > 1)


@pytest.mark.parametrize(("word", "kind"), [("Guest", Guest), ("Policy", Policy), ("Port", PublishedPort)])
def test_values_are_told_with_their_fields(word, kind):
    (line,) = [line for line in PAGE.splitlines() if line.startswith(f"| {word} |")]
    assert set(re.findall(r'"(\w+)"', line)) == {field.name for field in fields(kind)}


def test_kinds_of_disks_and_states_of_snapshots_are_told():
    (line,) = [line for line in PAGE.splitlines() if line.startswith("| `disks` |")]
    assert set(DISK_KINDS) == set(re.findall(r"`([\w-]+)`", line)) - {"disks"}
    assert {ACTIVE, FULL} <= words(rows()["list_snapshots"][2])


def test_limits_are_those_of_the_contract():
    assert f'{{"v": {VERSION}, ' in PAGE
    assert f"at most {MESSAGE_BYTES_MAX // 1024} KiB, with at most {DESCRIPTORS_MAX} descriptors" in PAGE
    assert f"at most {GUESTS_MAX} guests" in PAGE
    assert f"1 to {TAPS_MAX} names" in PAGE
    assert len(SIGNALS) == len("INT, QUIT, KILL, TERM, CONT or STOP".replace(" or", ",").split(", "))
