"""Which back end a VM gets: the one asked for, or the first that this host can really run."""

from collections.abc import Callable, Mapping

from banger.base.problem import Problem, bad_request, unavailable
from banger.vmm.contract import Capability, Vmm

AUTO = "auto"

FindMisfit = Callable[[Vmm, frozenset[Capability]], Problem | None]


def _find_none(_: Vmm, __: frozenset[Capability]) -> Problem | None:
    return None


async def choose_vmm(wanted: str, candidates: Mapping[str, Vmm], find_misfit: FindMisfit = _find_none) -> Vmm:
    """`candidates` are in order of preference, the last being the one that needs least of a host. `find_misfit` says
    why one that can run does not suit. Raises `bad_request` for a name nobody has, `unavailable` when none can run:
    with the last one's reason, and each one's in the detail."""
    if wanted != AUTO:
        if wanted not in candidates:
            raise bad_request(f"{wanted!r} is not a VMM", hint=f"use {', '.join((AUTO, *candidates))}")
        candidates = {wanted: candidates[wanted]}
    refusals: list[Problem] = []
    for candidate in candidates.values():
        try:
            misfit = find_misfit(candidate, await candidate.capabilities())
        except Problem as problem:
            misfit = problem
        if misfit is None:
            return candidate
        refusals.append(misfit)
    if len(refusals) == 1:
        raise refusals[0]
    raise unavailable(
        f"no VMM can run on this host: {refusals[-1].brief}",
        detail="\n".join(refusal.brief for refusal in refusals),
        hint=next((refusal.hint for refusal in reversed(refusals) if refusal.hint), "banger doctor"),
    )
