"""Renders what the crash tests have found into docs/reference/crash-matrix.md.

    python tools/crash_table.py

The runs write JSON files into build/crashes/: `make test-load` those of the fake host, `make test-vm` those of QEMU,
`make lab` those of the lab. Neighbouring points with the same outcome share a row. Not checked for freshness: it
tells of runs, and they take minutes.
"""

import json
import sys
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "build" / "crashes"
PAGE = ROOT / "docs" / "reference" / "crash-matrix.md"
COLUMNS = {
    ("fake", "jailed"): "fake: jail, bridge",
    ("fake", "plain"): "fake: user mode",
    ("QEMU", "plain"): "QEMU",
    ("lab", "jailed"): "lab: Firecracker",
}
KILLED = {"daemon": "the daemon", "helper": "the root helper", "vmm": "the VMM"}
HEAD = """# Crash matrix

Written by `tools/crash_table.py` from the last runs; do not edit.

The daemon, the root helper or the VMM was killed with SIGKILL at a point of an operation on one VM. Then the daemon was
started again (the helper restarts by itself), and everything was looked at: rows, processes, taps, guests in the
firewall, published ports, names, jails, snapshots, files, operations. In each case below nothing was left that no row
accounts for, the VM could be started, ran a command, had what its user had written, and could be deleted without a
trace. A point is reached again in every try; neighbouring points with the same outcome share a row.

`gone`: nothing is left of the VM. `stopped`: it is there and can be started; `with an error`: it says why, because
nobody had told it to stop, or it never got up. `running, same boot`: the guest went on, unaware. `running, another
boot`: the boot that the operation began has been taken over. `rest by reconcile`: what the dead helper could not give
back was written down, and given back by `banger daemon reconcile` (so does the VM's next start, and the daemon's). `not
reached`: something that happens in the background did not happen this time. `–`: not tried there.
"""


class Run(NamedTuple):
    """One file of results."""

    tier: str
    kind: str
    operation: str
    killed: str
    points: dict[str, str]
    problems: dict[str, list[str]]


class Row(NamedTuple):
    point: str
    outcomes: tuple[str, ...]


def read_runs(directory: Path) -> list[Run]:
    runs = []
    for path in sorted(directory.glob("*.json")):
        data = json.loads(path.read_text())
        runs.append(
            Run(
                data["tier"],
                data["kind"],
                data["operation"],
                data["killed"],
                {each["point"]: each["outcome"] for each in data["points"]},
                {each["point"]: each["problems"] for each in data["points"] if each["problems"]},
            )
        )
    return runs


def merge_points(lists: Iterable[Sequence[str]]) -> list[str]:
    """All points, in the order of the first list; what only a later one has stands behind its predecessor there."""
    merged: list[str] = []
    for points in lists:
        place = 0
        for point in points:
            if point in merged:
                place = merged.index(point) + 1
            else:
                merged.insert(place, point)
                place += 1
    return merged


def render_rows(runs: Sequence[Run]) -> list[str]:
    """The table of one operation and one that was killed."""
    present = {(run.tier, run.kind): run.points for run in runs}
    columns = [column for column in COLUMNS if column in present]
    rows = [
        Row(point, tuple(present[column].get(point, "–") for column in columns))
        for point in merge_points([present[column].keys() for column in columns])  # type: ignore[misc]
    ]
    lines = [
        f"| from | to | points | {' | '.join(COLUMNS[column] for column in columns)} |",
        f"|---|---|--:|{'---|' * len(columns)}",
    ]
    for outcomes, group in groupby(rows, key=lambda row: row.outcomes):
        points = [row.point for row in group]
        last = points[-1] if len(points) > 1 else ""
        lines.append(f"| {points[0]} | {last} | {len(points)} | {' | '.join(outcomes)} |")
    return lines


def render_page(runs: Sequence[Run]) -> str:
    """Raises SystemExit where a run has found something wrong: that is no table to publish."""
    wrong = [
        f"{run.tier} {run.kind}, {run.operation}, {run.killed} killed {point}: {problems[0]}"
        for run in runs
        for point, problems in run.problems.items()
    ]
    if wrong:
        raise SystemExit("\n".join(["these points are not as they should be:", *wrong]))
    lines = [HEAD]
    total = sum(len(run.points) for run in runs)
    lines.append(f"{total} points in {len(runs)} runs.\n")
    for operation in dict.fromkeys(run.operation for run in runs):
        for killed, title in KILLED.items():
            chosen = [
                run for run in runs if (run.operation, run.killed) == (operation, killed) and run.points
            ]
            if chosen:
                lines += [f"## {operation}: {title} is killed\n", *render_rows(chosen), ""]
    return "\n".join(lines)


def main() -> int:
    runs = read_runs(RESULTS)
    if not runs:
        sys.stderr.write(f"{RESULTS} has no results: make test-load test-vm\n")
        return 1
    PAGE.write_text(render_page(runs))
    print(f"{PAGE.relative_to(ROOT)}: {sum(len(run.points) for run in runs)} points")
    return 0


if __name__ == "__main__":
    sys.exit(main())
