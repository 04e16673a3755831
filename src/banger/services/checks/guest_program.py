"""Is the guest program part of this installation, and a program?"""

from banger.api.system import Finding
from banger.services.checks.contract import CheckSurroundings, failed, passed

_FIX = "reinstall banger, or make guest-program in a clone"


async def check(around: CheckSurroundings) -> Finding:
    try:
        with around.guest_program.open("rb") as file:
            head = file.read(4)
    except OSError as error:
        return failed("guest program", f"{around.guest_program}: {error.strerror}", _FIX)
    if head != b"\x7fELF":
        return failed("guest program", f"{around.guest_program} is no program", _FIX)
    return passed(
        "guest program", f"{around.guest_program.name}, {around.guest_program.stat().st_size // 1024} KiB"
    )
