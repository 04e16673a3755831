"""Can Firecracker start VMs here, and which one would it be? A guest that really ran tells."""

from banger.api.system import Finding
from banger.services.checks.contract import CheckSurroundings, failed, passed, warned

_NAME = "firecracker"
_SELF = "banger doctor"  # what a hint names where the other findings say more


async def check(around: CheckSurroundings) -> Finding:
    """A missing one is no failure where QEMU may take its place."""
    if around.config.vmm == "qemu":
        return passed(_NAME, 'not used: the configuration says vmm = "qemu"')
    verdict = await around.try_firecracker()
    if verdict.works:
        return passed(_NAME, verdict.text)
    fix = None if verdict.fix == _SELF else verdict.fix
    if around.config.vmm == "firecracker":
        return failed(_NAME, f'no VM can start: vmm = "firecracker" cannot be had: {verdict.text}', fix)
    return warned(_NAME, f"VMs run on QEMU: {verdict.text}", fix)
