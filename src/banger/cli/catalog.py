"""Every command of the CLI as data: its words, its function, and which parameters it takes from which method.

The parameters themselves come from the generated `methods` table; only what the CLI adds is written here.
Functions are named, not imported, so that one command loads one module of `banger.cli.commands`.
"""

from __future__ import annotations

from banger.cli.flags import (
    AGENT,
    ALONE,
    ATTACH,
    AUTO_PREPARE,
    COPIED,
    DETACH,
    DETACH_KEYS,
    DRY_RUN,
    ENTER,
    ENV_FILE,
    FOLLOW,
    FROM,
    FROM_FILE,
    HOST,
    INTERVAL,
    JSON,
    NAMED,
    NAMED_VMS,
    NO_BOOTSTRAP,
    NO_FORWARDING,
    NO_START,
    OP,
    OUTPUT,
    OWNER,
    PROGRAM,
    PURGE,
    QUIET,
    REMOVE,
    SHELL,
    SSH_FILE,
    SSH_INSTALL,
    SSH_UNINSTALL,
    START,
    STDERR,
    STDOUT,
    TEXT,
    TTY,
    WATCH,
    YES,
)
from banger.cli.methods import METHODS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Row = dict[str, Any]

GROUPS = (
    *("vm", "workspace", "tooling", "session", "agent", "image", "kernel"),
    *("daemon", "operation", "setup", "system"),
)

# Groups that may have `vm` before them.
OF_VMS = ("session", "workspace")

# run: module and function. method: whose parameters it takes (hidden ones left out); also: named parameters of
# other methods. flags: what only the CLI knows. many: several references. rest: the name of what follows `--`.
COMMANDS: dict[str, Row] = {
    "vm run": {
        "run": "run:run",
        "summary": "Creates a VM, boots it, and runs a command or a shell in it.",
        "method": "vm.create",
        "also": (
            ("vm.exec", ("env", "cwd", "user", "pty", "stdin")),
            (
                "workspace.prepare",
                (
                    "path",
                    "full",
                    "depth",
                    "untracked",
                    "include",
                    "branch",
                    "commit",
                    "guest_path",
                    "read_only",
                ),
            ),
            ("tooling.install", ("timeout_s",)),
        ),
        "flags": (NO_BOOTSTRAP, ENV_FILE, AGENT, REMOVE, DETACH, QUIET),
        "rest": "CMD",
    },
    "vm create": {"run": "vm:create", "method": "vm.create", "flags": (NAMED, NO_START, QUIET, JSON)},
    "vm start": {"run": "vm:change", "method": "vm.start", "flags": (QUIET, JSON), "many": True},
    "vm stop": {"run": "vm:change", "method": "vm.stop", "flags": (QUIET, JSON), "many": True},
    "vm restart": {"run": "vm:change", "method": "vm.restart", "flags": (QUIET, JSON), "many": True},
    "vm kill": {"run": "vm:change", "method": "vm.kill", "flags": (QUIET, JSON), "many": True},
    "vm delete": {"run": "vm:change", "method": "vm.delete", "flags": (QUIET, JSON), "many": True},
    "vm set": {"run": "vm:change", "method": "vm.set", "flags": (JSON,), "many": True},
    "vm rename": {"run": "vm:rename", "method": "vm.rename", "flags": (JSON,)},
    "vm publish": {"run": "vm:publish", "method": "vm.publish", "flags": (JSON,)},
    "vm unpublish": {"run": "vm:publish", "method": "vm.unpublish", "flags": (JSON,)},
    "vm list": {"run": "vmlist:show_list", "method": "vm.list", "flags": (JSON,)},
    "vm show": {"run": "vm:show", "method": "vm.show", "flags": (JSON,)},
    "vm exec": {
        "run": "run:execute",
        "summary": "Runs a command in a running VM.",
        "method": "vm.exec",
        "flags": (ENV_FILE, AUTO_PREPARE),
        "rest": "CMD",
        "rest_required": True,
    },
    "vm ssh": {
        "run": "run:ssh",
        "summary": "Opens OpenSSH to a VM, with a key and host key that are known to be right.",
        "method": "vm.ssh",
        "flags": (TTY,),
        "rest": "CMD",
    },
    "vm cp": {
        "run": "copy:copy",
        "summary": "Copies files and directories into a VM or out of it.",
        "also": (("vm.put", ("parents", "archive", "user")),),
        "flags": (COPIED, FOLLOW, QUIET),
        "many": True,
    },
    "vm stats": {
        "run": "usage:stats",
        "method": "vm.stats",
        "flags": (WATCH, INTERVAL, JSON),
        "many": True,
    },
    "vm ports": {"run": "usage:ports", "method": "vm.ports", "flags": (JSON,)},
    "vm health": {"run": "usage:health", "method": "vm.health", "flags": (JSON,)},
    "vm logs": {"run": "vm:logs", "method": "vm.logs", "flags": (JSON,)},
    "vm prune": {"run": "vm:prune", "method": "vm.prune", "flags": (YES, JSON)},
    "tooling plan": {"run": "tooling:plan", "method": "tooling.plan", "flags": (JSON,)},
    "tooling install": {"run": "tooling:install", "method": "tooling.install", "flags": (QUIET, JSON)},
    "session start": {
        "run": "session:start",
        "method": "session.start",
        "flags": (ENV_FILE, ATTACH, DETACH_KEYS, JSON),
        "rest": "CMD",
        "rest_required": True,
    },
    "session list": {"run": "session:show_list", "method": "session.list", "flags": (JSON,)},
    "session show": {"run": "session:show", "method": "session.show", "flags": (JSON,)},
    "session logs": {"run": "session:logs", "method": "session.logs", "flags": (STDOUT, STDERR)},
    "session attach": {"run": "session:attach", "method": "session.attach", "flags": (DETACH_KEYS,)},
    "session send": {"run": "session:send", "method": "session.send", "flags": (TEXT, ENTER)},
    "session resize": {"run": "session:resize", "method": "session.resize", "flags": (JSON,)},
    "session stop": {"run": "vm:change", "method": "session.stop", "flags": (JSON,), "many": True},
    "session kill": {"run": "vm:change", "method": "session.kill", "flags": (JSON,), "many": True},
    "session remove": {"run": "vm:change", "method": "session.remove", "flags": (JSON,), "many": True},
    "agent list": {"run": "agent:show_list", "method": "agent.list", "flags": (JSON,)},
    "agent run": {
        "run": "agent:run",
        "summary": "Runs an agent in a running VM: on your terminal, or with -d in the background.",
        "method": "agent.prepare",
        "also": (("vm.exec", ("env", "cwd", "user")),),
        "flags": (ENV_FILE, DETACH, QUIET),
        "rest": "CMD",
    },
    "workspace prepare": {
        "run": "workspace:prepare",
        "method": "workspace.prepare",
        "flags": (DRY_RUN, QUIET, JSON),
    },
    "workspace plan": {"run": "workspace:plan", "method": "workspace.plan", "flags": (JSON,)},
    "workspace status": {"run": "workspace:status", "method": "workspace.status", "flags": (JSON,)},
    "workspace export": {"run": "workspace_out:export", "method": "workspace.export", "flags": (OUTPUT,)},
    "workspace diff": {"run": "workspace_out:diff", "method": "workspace.diff"},
    "workspace pull": {"run": "workspace_out:pull", "method": "workspace.pull", "flags": (QUIET, JSON)},
    "image list": {"run": "image:show_list", "method": "image.list", "flags": (JSON,)},
    "image show": {"run": "image:show", "method": "image.show", "flags": (JSON,)},
    "image build": {"run": "image:build", "method": "image.build", "flags": (QUIET, JSON)},
    "image delete": {"run": "vm:change", "method": "image.delete", "flags": (JSON,), "many": True},
    "kernel list": {"run": "kernel:show_list", "method": "kernel.list", "flags": (JSON,)},
    "kernel show": {"run": "kernel:show", "method": "kernel.show", "flags": (JSON,)},
    "kernel pull": {"run": "kernel:pull", "method": "kernel.pull", "flags": (QUIET, JSON)},
    "kernel delete": {"run": "vm:change", "method": "kernel.delete", "flags": (JSON,), "many": True},
    "daemon status": {"run": "daemon:status", "method": "daemon.status", "flags": (JSON,)},
    "daemon start": {"run": "daemon:start", "summary": "Starts the daemon, unless it runs already."},
    "daemon stop": {"run": "daemon:stop", "method": "daemon.stop"},
    "daemon restart": {
        "run": "daemon:restart",
        "summary": "Starts the daemon anew, as after an upgrade or a change of its configuration. VMs run on.",
    },
    "daemon reconcile": {"run": "daemon:reconcile", "method": "daemon.reconcile", "flags": (JSON,)},
    "daemon serve": {
        "run": "daemon:serve",
        "summary": "Is the daemon, in the foreground, with its log on stderr.",
    },
    "operation list": {"run": "operation:show_list", "method": "operation.list", "flags": (JSON,)},
    "operation show": {"run": "operation:show", "method": "operation.show", "flags": (JSON,)},
    "operation watch": {"run": "operation:watch", "method": "operation.watch", "flags": (QUIET, JSON)},
    "operation cancel": {"run": "operation:cancel", "method": "operation.cancel", "flags": (JSON,)},
    "setup firecracker": {
        "run": "setup:firecracker",
        "summary": "Fetches Firecracker and its jailer in the version that banger knows, and verifies them.",
        "flags": (FROM, QUIET, JSON),
    },
    "setup tools": {
        "run": "setup:tools",
        "summary": "Fetches the programs that banger puts into guests (mise, opencode), and verifies them.",
        "flags": (PROGRAM, FROM_FILE, QUIET, JSON),
    },
    "system install": {
        "run": "system:install",
        "summary": "Installs the root helper and the daemon as services of the system, or upgrades them.",
        "flags": (OWNER, NO_FORWARDING, START),
    },
    "system status": {
        "run": "system:status",
        "summary": "What is installed for the system, whether it is whole, and whether it runs.",
        "flags": (JSON,),
    },
    "system restart": {
        "run": "system:restart",
        "summary": "Starts helper and daemon anew; VMs run on.",
    },
    "system uninstall": {
        "run": "system:uninstall",
        "summary": "Removes what system install has laid down. Refused while VMs run.",
        "flags": (PURGE, YES),
    },
    "ssh-config": {
        "run": "ssh_config:configure",
        "summary": "What OpenSSH needs to know so that ssh NAME.vm works, for every VM there will be.",
        "flags": (NAMED_VMS, SSH_INSTALL, SSH_UNINSTALL, SSH_FILE),
        "many": True,
    },
    "__ssh-proxy": {
        "run": "ssh_config:proxy",
        "summary": "What ssh runs for a connection to a VM.",
        "flags": (HOST,),
    },
    "__ssh-known-host": {
        "run": "ssh_config:known_host",
        "summary": "What ssh runs for the host key of a VM.",
        "flags": (HOST,),
    },
    "df": {"run": "disk:usage", "method": "disk.usage", "flags": (JSON,)},
    "top": {
        "run": "usage:top",
        "summary": "What the running VMs use, the busiest first, until left with q or Ctrl-C.",
        "method": "vm.stats",
        "flags": (INTERVAL,),
        "many": True,
    },
    "doctor": {"run": "system:doctor", "method": "doctor.run", "flags": (JSON,)},
    "version": {
        "run": "system:version",
        "summary": "Versions of banger and of the running daemon.",
        "flags": (JSON,),
    },
    "completion": {
        "run": "completion:script",
        "summary": "Prints the completion script of a shell.",
        "flags": (SHELL,),
    },
    "__complete": {"run": "completion:complete", "summary": "Candidates for the last word.", "rest": "WORD"},
}

ALIASES = {"ps": "vm list", "cp": "vm cp", "vm ls": "vm list", "vm rm": "vm delete", "vm ps": "vm list"} | {
    f"{group} {short}": f"{group} {long}"
    for group in ("image", "kernel")
    for short, long in (("ls", "list"), ("rm", "delete"))
}
ALIASES["operation ls"] = "operation list"
ALIASES |= {"session ls": "session list", "session ps": "session list", "session rm": "session remove"}


class Parameter:
    """One flag or positional of a command, as the tables have it."""

    __slots__ = (
        "choices",
        "default",
        "flag",
        "help",
        "metavar",
        "name",
        "negatable",
        "positional",
        "required",
        "short",
        "type",
        "unit",
    )

    def __init__(self, row: Row) -> None:
        self.name: str = row["name"]
        self.type: str = row["type"]  # bool, int, float, str, list or map
        self.flag: str | None = row.get("flag")
        self.short: str | None = row.get("short")
        self.unit: str | None = row.get("unit")  # mib, bytes or seconds
        self.metavar: str = row.get("metavar") or _metavar(row)
        self.help: str = row["help"]
        self.default: object = row.get("default")
        self.choices: tuple[str, ...] = row.get("choices", ())
        self.positional: bool = row.get("positional", False)
        self.required: bool = row.get("required", False)
        self.negatable: bool = row.get("negatable", False)  # --no-FLAG says that it is not


class Command:
    """One command with all its parameters."""

    def __init__(self, name: str, row: Row) -> None:
        self.name = name
        self.module, _, self.function = row["run"].partition(":")
        self.method: str = row.get("method", "")
        self.many: bool = row.get("many", False)
        self.rest: str | None = row.get("rest")
        self.rest_required: bool = row.get("rest_required", False)
        declared = METHODS.get(self.method, {"help": "", "parameters": ()})
        self.summary: str = row.get("summary") or declared["help"]
        rows = [*declared["parameters"]]
        for method, names in row.get("also", ()):
            rows += [entry for entry in METHODS[method]["parameters"] if entry["name"] in names]
        rows += row.get("flags", ())
        if declared.get("kind") == "operation" and declared["effect"] != "read":
            rows += (OP,) if DETACH in rows else (ALONE, OP)
        self.parameters = [
            Parameter(entry) for entry in rows if not entry.get("hidden") and entry["name"] != "argv"
        ]

    @property
    def positionals(self) -> list[Parameter]:
        return [parameter for parameter in self.parameters if parameter.positional]

    @property
    def reference(self) -> str:
        """The name of the parameter that says which VM, image or kernel is meant."""
        return self.positionals[0].name

    def method_names(self, method: str) -> set[str]:
        """The names that a method of the daemon knows, hidden ones included."""
        return {entry["name"] for entry in METHODS[method]["parameters"]}


def find(name: str) -> Command:
    """The command of a full name, such as `vm list`, or of an alias."""
    name = ALIASES.get(name, name)
    return Command(name, COMMANDS[name])


def _metavar(row: Row) -> str:
    by_unit = {"mib": "SIZE", "bytes": "SIZE", "seconds": "DURATION"}
    if "unit" in row:
        return by_unit[row["unit"]]
    return {"map": "KEY=VALUE", "int": "N"}.get(row["type"]) or str(row.get("flag") or row["name"]).upper()
