"""Does the processor run guests, or is it emulated? A probe guest tells; /dev/kvm alone proves nothing."""

from banger.api.system import Finding
from banger.services.checks.contract import CheckSurroundings, passed, warned


async def check(around: CheckSurroundings) -> Finding:
    verdict = await around.try_accelerator()
    if verdict is None:
        return warned("acceleration", "not tried: there is no VMM to try it with")
    if verdict.works:
        return passed("acceleration", verdict.text)
    return warned("acceleration", f"guests run under software emulation: {verdict.text}", verdict.fix)
