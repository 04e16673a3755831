"""Is there a VMM that runs?"""

from banger.api.system import Finding
from banger.services.checks.contract import CheckSurroundings, failed, passed


async def check(around: CheckSurroundings) -> Finding:
    verdict = await around.try_vmm()
    return passed("vmm", verdict.text) if verdict.works else failed("vmm", verdict.text, verdict.fix)
