"""Refusals of the contract as Problems of the daemon. A `Refusal` never leaves this package."""

from banger.base.problem import Code, Outcome, Problem
from banger.privileged.contract.values import Refusal

# A refusal promises that nothing was changed. A bug can promise nothing, and begun work is no refusal.
_OUTCOMES = {Code.INTERNAL: Outcome.UNKNOWN, Code.OPERATION_FAILED: Outcome.FAILED}


def problem_of(refusal: Refusal) -> Problem:
    """A code that nobody knows is a bug: `internal`, with the code in the detail."""
    detail = None
    try:
        code = Code(refusal.code)
    except ValueError:
        code, detail = Code.INTERNAL, f"the helper's code is {refusal.code!r}"
    outcome = _OUTCOMES.get(code, Outcome.NOT_STARTED)
    return Problem(code, refusal.message, detail=detail, hint=refusal.hint or None, outcome=outcome)
