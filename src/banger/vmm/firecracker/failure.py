"""Why there is no guest, in Firecracker's own last words."""

from pathlib import Path

from banger.base.problem import Code, Problem
from banger.vmm.contract import Place
from banger.vmm.firecracker.sockets import VMM_LOG
from banger.vmm.logs import render_tail

SERIAL_LOG = "serial.log"


def explain_failure(place: Place, how: str) -> Problem:
    state = Path(place.state)
    words = [render_tail(state / name, 8) for name in (VMM_LOG, SERIAL_LOG)]
    detail = "\n".join(word for word in words if word) or None
    return Problem(Code.OPERATION_FAILED, f"Firecracker {how}", detail=detail, hint=f"less {state}/{VMM_LOG}")


def explain_end(place: Place) -> Problem:
    return explain_failure(place, "ended before the guest began")
