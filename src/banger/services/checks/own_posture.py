"""Banger's own security: directories, sockets, keys and records that nobody else reads, a configuration that nobody
else writes."""

import os
from collections.abc import Iterator
from pathlib import Path

from banger.api.system import Finding
from banger.services.checks.contract import CheckSurroundings, failed, passed
from banger.services.checks.trust import Distrust, judge_own, say_user

_NAME = "own posture"
_ROOT = 0


async def check(around: CheckSurroundings) -> Finding:
    wrong = list(_judge_all(around))
    if wrong:
        text = "; ".join(each.text for each in wrong)
        return failed(_NAME, text, " && ".join(each.fix for each in wrong))
    return passed(_NAME, f"directories, sockets and keys are private to {say_user(os.getuid())}")


def _judge_all(around: CheckSurroundings) -> Iterator[Distrust]:
    paths = around.paths
    for path, mode in (
        (paths.runtime, 0o700),
        (paths.state, 0o700),
        (paths.data, 0o700),
        (paths.cache, 0o700),
        (f"{paths.state}/vms", 0o700),
        (paths.socket, 0o600),
        (paths.database, 0o600),
        (paths.log, 0o600),
        (around.owner_key, 0o600),
    ):
        if (wrong := judge_own(Path(path), mode)) is not None:
            yield wrong
    config = Path(paths.config_file)
    for path, mode in ((config.parent, 0o755), (config, 0o644)):
        if (wrong := judge_own(path, mode, owners=(_ROOT,))) is not None:
            yield wrong
