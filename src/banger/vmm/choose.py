"""Which back end a VM gets: the one asked for, or the first that this host can really run."""

from collections.abc import Mapping

from banger.base.problem import Problem, bad_request, unavailable
from banger.vmm.contract import Vmm

AUTO = "auto"


async def choose_vmm(wanted: str, candidates: Mapping[str, Vmm]) -> Vmm:
    """`candidates` are in order of preference. Raises `bad_request` for a name nobody has, `unavailable`
    with each one's reason when none can run."""
    if wanted != AUTO:
        if wanted not in candidates:
            raise bad_request(f"{wanted!r} is not a VMM", hint=f"use {', '.join((AUTO, *candidates))}")
        await candidates[wanted].capabilities()
        return candidates[wanted]
    refusals: list[Problem] = []
    for candidate in candidates.values():
        try:
            await candidate.capabilities()
        except Problem as problem:
            refusals.append(problem)
        else:
            return candidate
    if len(refusals) == 1:
        raise refusals[0]
    raise unavailable(
        "no VMM can run on this host",
        detail="\n".join(refusal.brief for refusal in refusals) or None,
        hint=next((refusal.hint for refusal in refusals if refusal.hint), "banger doctor"),
    )
