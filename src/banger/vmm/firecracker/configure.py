"""The requests before the start, made one after the other, with the tap lent while Firecracker attaches to it."""

import asyncio
from collections.abc import Sequence

from banger.base.problem import Problem
from banger.model.machine import TapNetwork
from banger.vmm.firecracker.bodies import Call, plan_network
from banger.vmm.firecracker.guest import WatchedGuest
from banger.vmm.firecracker.tap import release_tap

_BUSY = "os error 16"
_BUSY_TRIES = 50
_BUSY_PAUSE_S = 0.01


async def configure(
    guest: WatchedGuest, calls: Sequence[Call], network: TapNetwork | None, tap: int | None
) -> None:
    """Without a descriptor the tap is one that Firecracker may attach to as it is. Settled before the guest's first
    instruction: until then nobody but us has had a say in what the process does. Who fails here ends Firecracker and
    reclaims the tap."""
    attach = None if network is None or tap is None else plan_network(network)
    for call in calls:
        if call == attach:
            assert network is not None
            assert tap is not None
            release_tap(tap, network.tap, guest.home.uid)
            await _attach(guest, call)
        else:
            await guest.api.call(call)
    await guest.home.settle(guest.pidfd, tap if attach else None, network.tap if network else "")


async def _attach(guest: WatchedGuest, call: Call) -> None:
    """A copy of the descriptor may live a moment longer than ours: in the helper that has just sent it, in a child
    between fork and exec. Nothing tells when it is closed."""
    for attempt in range(1, _BUSY_TRIES + 1):
        try:
            return await guest.api.call(call)
        except Problem as problem:
            if _BUSY not in problem.brief or attempt == _BUSY_TRIES:
                raise
        await asyncio.sleep(_BUSY_PAUSE_S)
    raise AssertionError("unreachable")
