"""Is the installation for the system finished, of this version, enabled, and does it run?

More is in `banger system status`, which compares every file.
"""

import hashlib
import os

import banger
from banger.api.system import Finding
from banger.base.problem import Problem
from banger.base.process import find_tool, run
from banger.privileged.contract.processes import Hello
from banger.services.checks.contract import CheckSurroundings, failed, passed, warned
from banger.services.checks.records import InstallRecord, find_install_record

_NAME = "installation"
_INSTALL, _RESTART = "sudo banger system install", "sudo banger system restart"
_UNITS = ("banger-root.service", "banger.service")
_BUILD_DIGITS = 16
_TIMEOUT_S = 10.0


async def check(around: CheckSurroundings) -> Finding:
    record = find_install_record(around.places.install_record)
    if record is None:
        return passed(_NAME, "not installed for the system: the daemon is started when it is needed")
    if record.uid != os.getuid():
        return passed(_NAME, f"for {record.owner}, and not for you: your daemon is your own")
    if not record.finished:
        return failed(_NAME, "it was begun and not finished", _INSTALL)
    if record.version != banger.__version__:
        return warned(
            _NAME, f"of version {record.version}, and this banger is {banger.__version__}", _INSTALL
        )
    with_systemd = around.places.systemd.is_dir()
    wrong = await _judge_helper(around, record) or (await _judge_units() if with_systemd else None)
    units = "units enabled and running" if with_systemd else "without systemd"
    return wrong or passed(_NAME, f"version {record.version} for {record.owner}; {units}")


async def _judge_helper(around: CheckSurroundings, record: InstallRecord) -> Finding | None:
    """The file is the one that was laid down, and the process runs that file."""
    digest = hashlib.sha256(around.root_program.read_bytes()).hexdigest()
    if digest != record.digest_of(str(around.root_program)):
        return failed(_NAME, f"{around.root_program} is not what was installed", _INSTALL)
    if around.privileged is None:
        return failed(_NAME, "the root helper is installed and not used", _RESTART)
    try:
        greeting = (await around.privileged.call(Hello())).result
    except Problem as problem:
        return failed(_NAME, f"the root helper does not answer: {problem.brief}", _RESTART)
    if greeting.build != digest[:_BUILD_DIGITS]:
        return warned(_NAME, "the root helper that runs is not the one that is installed", _RESTART)
    return None


async def _judge_units() -> Finding | None:
    systemctl = find_tool("systemctl")
    if systemctl is None:
        return None
    for unit in _UNITS:
        show = ("show", "--property=UnitFileState,ActiveState,NeedDaemonReload", unit)
        done = await run((str(systemctl), *show), timeout_s=_TIMEOUT_S)
        said = dict(line.partition("=")[::2] for line in done.stdout.decode("utf-8", "replace").splitlines())
        if said.get("ActiveState") != "active":
            text = f"{unit} is {said.get('ActiveState', 'unknown')}"
            return failed(_NAME, text, f"sudo systemctl restart {unit}")
        if said.get("UnitFileState") != "enabled":
            text = f"{unit} is {said.get('UnitFileState') or 'unknown'}: it does not start with this host"
            return warned(_NAME, text, f"sudo systemctl enable {unit}")
        if said.get("NeedDaemonReload") == "yes":
            return warned(_NAME, f"the file of {unit} has changed since systemd read it", _RESTART)
    return None
