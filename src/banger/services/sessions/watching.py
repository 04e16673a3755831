"""Follows the sessions of guests: one watch for each connection to an agent whose VM has sessions.

Owns the watches. One begins when an agent is met whose VM has sessions that have not ended, or with the first session,
and ends with its connection; the next connection has its own. Nothing is asked again and again.
"""

import asyncio
import logging

from banger.base.problem import Code, Problem
from banger.base.tasks import Supervisor
from banger.guest.agent import Agent
from banger.services.sessions.rows import Rows

_log = logging.getLogger(__name__)


class Watches:
    def __init__(self, rows: Rows, tasks: Supervisor) -> None:
        self._rows = rows
        self._tasks = tasks
        self._watches: dict[str, tuple[Agent, asyncio.Task[None]]] = {}

    def meet(self, vm_id: str, agent: Agent) -> None:
        """A new connection to a guest."""
        if self._rows.list_open(vm_id):
            self.ensure(vm_id, agent)

    def ensure(self, vm_id: str, agent: Agent) -> None:
        former = self._watches.get(vm_id)
        if former is not None and former[0].link is agent.link:
            return
        if former is not None:
            former[1].cancel()
        watch = self._tasks.start(self._follow(vm_id, agent), name=f"watch the sessions of {vm_id}")
        self._watches[vm_id] = (agent, watch)

    async def _follow(self, vm_id: str, agent: Agent) -> None:
        """First the news, then all there is: nothing falls between the two. One that begins while the guest is asked
        need not be in its answer."""
        boot_id, due = agent.welcome.boot_id, self._rows.list_due(vm_id)
        try:
            async with agent.sessions.watch() as news:
                self._rows.compare(vm_id, boot_id, await agent.sessions.list(), due)
                async for info in news:
                    self._rows.learn(vm_id, info)
                    if info.is_over:
                        await self._prune(vm_id, agent)
        except Problem as problem:
            if problem.code is Code.UNKNOWN_METHOD:
                self._rows.compare(vm_id, boot_id, (), due)  # of a banger that knew no sessions
            level = logging.DEBUG if agent.link.is_closed else logging.WARNING
            _log.log(level, "a guest's sessions are not watched", extra={"vm": vm_id, "why": problem.brief})
        finally:
            if vm_id in self._watches and self._watches[vm_id][0] is agent:
                del self._watches[vm_id]

    async def _prune(self, vm_id: str, agent: Agent) -> None:
        """What cannot be removed now gives way later; the watch goes on."""
        for row in self._rows.list_surplus(vm_id):
            try:
                self._rows.drop(row.id)
                await agent.sessions.remove(row.id)
            except Problem as problem:
                _log.debug("a session is still kept", extra={"session": row.id, "why": problem.brief})
