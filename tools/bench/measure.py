"""What a measurement is, and how it is reported.

Absolute times mean nothing on a shared machine, so a reference is measured in the same rounds, and a run in
which the reference itself drifts more than twofold between its halves fails.
"""

import json
import statistics
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

DRIFT_LIMIT = 2.0


class Result(NamedTuple):
    """`ratio` is candidate / reference, or its inverse where a speed-up is told; `target` is in the same sense."""

    id: str
    what: str
    ratio: float
    candidate: float
    reference: float
    unit: str
    rounds: int
    target: str
    met: bool


class Drifted(Exception):
    """The reference was not the same at the beginning and at the end of the run."""


def compare(
    id_: str, what: str, candidates: list[float], references: list[float], *, unit: str, at_most: float
) -> Result:
    """Smaller is better."""
    _check_drift(id_, references)
    candidate, reference = statistics.median(candidates), statistics.median(references)
    ratio = candidate / reference
    return Result(
        id_, what, ratio, candidate, reference, unit, len(candidates), f"≤ {at_most}", ratio <= at_most
    )


def compare_rates(
    id_: str, what: str, candidates: list[float], references: list[float], *, unit: str, at_least: float
) -> Result:
    """More is better."""
    _check_drift(id_, references)
    candidate, reference = statistics.median(candidates), statistics.median(references)
    ratio = candidate / reference
    return Result(
        id_, what, ratio, candidate, reference, unit, len(candidates), f"≥ {at_least}", ratio >= at_least
    )


def compare_speed(
    id_: str, what: str, candidates: list[float], references: list[float], *, unit: str, at_least: float
) -> Result:
    """Durations; the ratio says how many times faster the candidate is."""
    _check_drift(id_, references)
    candidate, reference = statistics.median(candidates), statistics.median(references)
    ratio = reference / candidate
    return Result(
        id_, what, ratio, candidate, reference, unit, len(candidates), f"≥ {at_least:g}×", ratio >= at_least
    )


async def interleave(
    rounds: int, candidate: Callable[[], Awaitable[float]], reference: Callable[[], Awaitable[float]]
) -> tuple[list[float], list[float]]:
    """Both in turn, the order alternating, so that neither always follows the other."""
    candidates: list[float] = []
    references: list[float] = []
    for number in range(rounds):
        pairs = [(candidate, candidates), (reference, references)]
        for work, results in pairs if number % 2 == 0 else reversed(pairs):
            results.append(await work())
    return candidates, references


def _check_drift(id_: str, references: list[float]) -> None:
    half = len(references) // 2
    first, second = statistics.median(references[:half]), statistics.median(references[half:])
    if max(first, second) > DRIFT_LIMIT * min(first, second):
        raise Drifted(f"{id_}: the reference drifted from {first:.4g} to {second:.4g}; run it again")


def write_results(results: list[Result], path: Path) -> None:
    """Adds to what other benches have written to the same file."""
    path.parent.mkdir(exist_ok=True)
    known = json.loads(path.read_text()) if path.exists() else {}
    for result in results:
        known[result.id] = {
            "ratio": round(result.ratio, 4),
            "candidate": result.candidate,
            "reference": result.reference,
            "unit": result.unit,
            "rounds": result.rounds,
        }
    path.write_text(json.dumps(known, indent=2) + "\n")


def render_table(results: list[Result]) -> str:
    rows = [("id", "what", "candidate", "reference", "ratio", "target", "rounds", "")]
    rows += [
        (
            result.id,
            result.what,
            f"{result.candidate:.4g} {result.unit}",
            f"{result.reference:.4g} {result.unit}",
            f"{result.ratio:.2f}",
            result.target,
            str(result.rounds),
            "met" if result.met else "MISSED",
        )
        for result in results
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
