"""What each of the three ways does around a call: validation before it, a Problem for a refusal, one log record.

Owns no state.
"""

import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from banger.base.problem import Code, Problem
from banger.privileged.contract.base import Reply, Request
from banger.privileged.contract.machines import EnterJail, LaunchVmm, SettleVmm
from banger.privileged.contract.network import CreateTaps, OpenDns
from banger.privileged.contract.values import Refusal, refuse
from banger.privileged.problems import problem_of

R = TypeVar("R")
_log = logging.getLogger("banger.privileged")


@contextmanager
def guard_call(kind: str, request: Request[Any], descriptors: Sequence[int]) -> Iterator[None]:
    """Nothing is begun that would be refused; a Refusal becomes a Problem; method, duration and code are logged.
    The operation id is stamped on the record by the daemon's formatter."""
    started = time.perf_counter()
    code = "cancelled"
    try:
        _validate(request, descriptors)
        yield
        code = ""
    except Refusal as refusal:
        problem = problem_of(refusal)
        code = problem.code.value
        raise problem from refusal
    except Problem as problem:
        code = problem.code.value
        raise
    except Exception:
        code = Code.INTERNAL.value
        raise
    finally:
        extra = {"way": kind, "method": request.method, "duration_ms": _milliseconds_since(started)}
        _log.info("root: %s", request.method, extra=extra | ({"code": code} if code else {}))


def count_descriptors(request: Request[Any], result: Any) -> int:
    """How many descriptors come with this result."""
    if isinstance(request, CreateTaps):
        return len(result.taps)
    if isinstance(request, LaunchVmm | EnterJail):
        return 1
    if isinstance(request, SettleVmm):
        return 1 if request.tap else 0
    return 2 if isinstance(request, OpenDns) else 0


def verify_reply(request: Request[R], reply: Reply[R]) -> Reply[R]:
    """The reply. Raises Refusal `internal` for a result without its descriptors, or with somebody else's, which are
    closed then."""
    expected = count_descriptors(request, reply.result)
    if len(reply.descriptors) == expected:
        return reply
    close_all(reply.descriptors)
    raise Refusal("internal", f"{request.method} brings {expected} descriptors, not {len(reply.descriptors)}")


def _validate(request: Request[Any], descriptors: Sequence[int]) -> None:
    if len(descriptors) not in request.descriptors:
        raise refuse(f"{request.method} does not take {len(descriptors)} descriptors")
    request.validate()


def _milliseconds_since(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 3)


def close_all(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
