"""Is the guest program part of this installation, and a program?"""

from banger.api.system import Finding
from banger.services.checks.contract import CheckSurroundings, failed, passed

_NAME = "guest program"
_CLONE = " (in a clone: make guest-program)"
_FIX = "python3 -m pip install --force-reinstall banger"


async def check(around: CheckSurroundings) -> Finding:
    try:
        with around.guest_program.open("rb") as file:
            head = file.read(4)
    except OSError as error:
        return failed(_NAME, f"{around.guest_program}: {error.strerror}{_CLONE}", _FIX)
    if head != b"\x7fELF":
        return failed(_NAME, f"{around.guest_program} is no program{_CLONE}", _FIX)
    size_kib = around.guest_program.stat().st_size // 1024
    return passed(_NAME, f"{around.guest_program.name}, {size_kib} KiB")
