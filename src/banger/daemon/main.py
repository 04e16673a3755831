"""The daemon from its first line to its last: directories, lock, services, socket; then all of it backwards.

`python -m banger.daemon [--foreground] [--keep-vms] [--ready-fd N]`. Without --foreground the log goes to the log
file; with --keep-vms a signal leaves the VMs running.
It does not fork: who starts it in the background gives it a session of its own.
"""

import asyncio
import contextlib
import gc
import logging
import os
import sys
from pathlib import Path
from typing import NamedTuple

from banger.base.log import start_logging
from banger.base.paths import Paths, find_paths
from banger.base.problem import Code, Outcome, Problem, bad_request
from banger.daemon.contract import OpenServices
from banger.daemon.dispatch import Dispatch
from banger.daemon.own_methods import OwnMethods
from banger.daemon.own_work import make_perform
from banger.daemon.server import open_server
from banger.daemon.shutdown import Shutdown, end_work
from banger.daemon.startup import Herald, ensure_directories, hold_lock
from banger.services.operations.registry import Operations

log = logging.getLogger(__name__)


async def serve(
    paths: Paths,
    open_services: OpenServices,
    *,
    herald: Herald | None = None,
    shutdown: Shutdown | None = None,
    foreground: bool = False,
) -> None:
    """Runs a daemon until it is asked to end. Raises Problem when it cannot begin."""
    shutdown = shutdown or Shutdown()
    ensure_directories(paths)
    # Connections close last, after store, socket and lock: a client that sees the end may start a new daemon.
    async with open_server() as server:
        # Of both directories: two daemons with different sockets must not share a database.
        with (
            hold_lock(Path(paths.lock), paths.socket),
            hold_lock(Path(paths.state_lock), paths.socket),
            shutdown.handle_signals(),
        ):
            start_logging("info", None if foreground else Path(paths.log))
            async with open_services(paths) as services:
                logging.getLogger().setLevel(services.log_level.upper())
                operations = Operations(services.operations)
                operations.recover()
                own = OwnMethods(paths, operations, services, shutdown.ask)
                await own.settle_unknown()
                services.attend(make_perform(operations))
                dispatch = Dispatch({**services.handlers, **own.render_handlers()}, operations)
                try:
                    await server.listen(Path(paths.socket), dispatch)
                    log.info("ready", extra={"socket": paths.socket, "pid": os.getpid()})
                    if herald is not None:
                        herald.tell_ready(paths.socket)
                    gc.freeze()  # what start-up made stays: collections need not look at it again
                    gc.enable()
                    await shutdown.asked.wait()
                finally:
                    await end_work(shutdown, server, dispatch, operations, services)
            log.info("ended")


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0 after an orderly end, else that of the error's code."""
    gc.disable()  # start-up makes no garbage worth three collections; `serve` enables it again
    herald = Herald(None)
    try:
        options = _parse_arguments(sys.argv[1:] if arguments is None else arguments)
        herald = Herald(options.ready_fd)
        from banger.daemon.wiring import open_services

        shutdown = Shutdown(keep_vms=options.keep_vms)
        work = serve(
            find_paths(), open_services, herald=herald, shutdown=shutdown, foreground=options.foreground
        )
        asyncio.run(work)
    except Problem as problem:
        return _report(herald, problem)
    except Exception as error:
        log.exception("the daemon ended by a bug")
        _report(
            herald, Problem(Code.INTERNAL, f"the daemon ended by a bug: {error!r}", outcome=Outcome.UNKNOWN)
        )
        raise
    finally:
        gc.enable()
    return 0


def _report(herald: Herald, problem: Problem) -> int:
    if logging.getLogger().hasHandlers():  # else it would go to stderr twice
        log.error("the daemon ends: %s", problem.brief)
    if not herald.tell_problem(problem):
        with contextlib.suppress(OSError):
            sys.stderr.write(f"error: {problem.brief}\n")
            if problem.hint:
                sys.stderr.write(f"hint: {problem.hint}\n")
    return problem.code.info.exit_status


class _Options(NamedTuple):
    foreground: bool = False
    keep_vms: bool = False
    ready_fd: int | None = None


def _parse_arguments(arguments: list[str]) -> _Options:
    """By hand: argparse would cost a tenth of the whole start. Raises `bad_request`."""
    options = _Options()
    rest = iter(arguments)
    for argument in rest:
        name, _, value = argument.partition("=")
        if argument == "--foreground":
            options = options._replace(foreground=True)
        elif argument == "--keep-vms":
            options = options._replace(keep_vms=True)
        elif name == "--ready-fd" and (value := value or next(rest, "")).isdecimal():
            options = options._replace(ready_fd=int(value))
        else:
            raise bad_request(
                f"the daemon does not know {argument!r}",
                hint="python -m banger.daemon [--foreground] [--keep-vms] [--ready-fd N]",
            )
    return options
