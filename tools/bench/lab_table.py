"""The results of `make bench-lab` as tables for people. Pure."""

from collections.abc import Iterable, Sequence
from typing import Any

Measured = dict[str, Any]
_TARGETS = {"P1": ("≥ 40×", 40.0), "P2": ("≤ 1.15×", 1.15)}
_WHAT = {
    "P1": ("Host set-up without guest (P1)", "banger", "tutorial", "ms"),
    "P2": ("Cold boot until the agent is ready (P2)", "banger", "one-line init", "s"),
}
_GUEST = "guest: "
_COUNTERS = {
    "processes": ("processes begun", 1),
    "syncs": ("files synced by banger", 2),
    "guest_syncs": ("files synced by the VMM, for its guest", None),
}


def render(results: dict[str, Measured], hows: Sequence[str]) -> Iterable[str]:
    for id_ in _WHAT:
        yield from _render_ratios(id_, results[id_], hows)
        yield ""
    yield from _render_stages("Stages of vm create, ms", results["stages"], hows)
    yield ""
    yield from _render_stages("Stages of the set-up (P1), ms", results["setup stages"], hows)
    yield ""
    yield from _render_counters(results["counters"], hows)


def _render_ratios(id_: str, measured: Measured, hows: Sequence[str]) -> Iterable[str]:
    title, candidate, reference, unit = _WHAT[id_]
    target, limit = _TARGETS[id_]
    rows = [(f"{title}, {unit}", candidate, "", reference, "", "ratio", f"target {target}")]
    for how in hows:
        result = measured[how]
        met = result["ratio"] >= limit if id_ == "P1" else result["ratio"] <= limit
        verdict = "worthless: the reference drifted" if result["drifted"] else "met" if met else "missed"
        samples = result["samples"]
        rows.append(
            (
                f"  {how}",
                *(render_figure(result["candidate"]), _render_spread(samples["candidate"])),
                *(render_figure(result["reference"]), _render_spread(samples["reference"])),
                f"{result['ratio']:.2f}×",
                verdict,
            )
        )
    yield from align(rows)


def _render_stages(title: str, stages: Measured, hows: Sequence[str]) -> Iterable[str]:
    """In the order in which they came; a stage that only one has stands where it came in that one."""
    names = list(dict.fromkeys(name for how in hows for name in stages[how]))
    rows = [(title, *hows)]
    rows += [
        (f"  {name}", *(render_figure(stages[how][name]) if name in stages[how] else "-" for how in hows))
        for name in names
    ]
    guests = [compare_guest(stages[how]) for how in hows]
    if all(guests):
        rows.append(
            ("  agent ready against init, by the guest's clock", *(f"{ratio:.2f}×" for ratio in guests))
        )
    yield from align(rows)


def compare_guest(stages: dict[str, float]) -> float:
    """What the agent's readiness takes against the kernel's part, in one and the same boot: P2 without the noise of two
    boots, and without what lies before the guest's first instruction. 0 without a guest."""
    guest = {name: lasted for name, lasted in stages.items() if name.startswith(_GUEST)}
    init = guest.get(f"{_GUEST}init", 0.0)
    return sum(guest.values()) / init if init else 0.0


def _render_counters(counters: Measured, hows: Sequence[str]) -> Iterable[str]:
    rows = [("Costs of one vm create", *hows, "target")]
    for key, (title, limit) in _COUNTERS.items():
        target = "" if limit is None else f"≤ {limit}"
        rows.append((f"  {title}", *(str(len(counters[how][key])) for how in hows), target))
    yield from align(rows)
    for how in hows:
        for key in _COUNTERS:
            yield from (f"    {how}: {each}" for each in count_equal(counters[how][key]))


def count_equal(items: Sequence[str]) -> list[str]:
    return [f"{items.count(item)} × {item}" for item in dict.fromkeys(items)]


def render_figure(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _render_spread(samples: Sequence[float]) -> str:
    return f"({render_figure(min(samples))}-{render_figure(max(samples))})"


def align(rows: Sequence[Sequence[str]]) -> Iterable[str]:
    """The first column to the left, the others to the right, verdicts and targets in the last as they are."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        first, *rest = (
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join((first, *rest)).rstrip()
