"""Is the guest program part of this installation, and a program?"""

from banger.api.system import Finding
from banger.services.checks.contract import CheckSurroundings, failed, passed


async def check(around: CheckSurroundings) -> Finding:
    try:
        with around.guest_program.open("rb") as file:
            head = file.read(4)
    except OSError as error:
        return failed("guest program", f"{around.guest_program}: {error.strerror}", "make guest-program")
    if head != b"\x7fELF":
        return failed("guest program", f"{around.guest_program} is no program", "make guest-program")
    return passed(
        "guest program", f"{around.guest_program.name}, {around.guest_program.stat().st_size // 1024} KiB"
    )
