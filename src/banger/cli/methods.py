"""Every method of the daemon as plain literals: written by tools/generate.py; do not edit."""

# fmt: off
# ruff: noqa: E501
from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

METHODS: dict[str, dict[str, Any]] = {
    'agent.list': {
        'help': 'Lists the agents that are known, and whether a running VM has them.',
        'effect': 'read', 'kind': 'immediate',
        'parameters': (
            {'name': 'vm', 'type': 'str', 'positional': True, 'help': 'a running VM to look into', 'metavar': 'VM'},
        ),
    },
    'agent.show': {
        'help': 'Everything known about one agent.',
        'effect': 'read', 'kind': 'immediate',
        'parameters': (
            {'name': 'agent', 'type': 'str', 'positional': True, 'help': 'the name of an agent', 'metavar': 'AGENT', 'required': True},
        ),
    },
    'agent.prepare': {
        'help': "Gives a running VM an agent's program, unless it is there.",
        'effect': 'change', 'kind': 'operation',
        'parameters': (
            {'name': 'vm', 'type': 'str', 'positional': True, 'help': 'name, id or unique id prefix of a VM', 'metavar': 'VM', 'required': True},
            {'name': 'agent', 'type': 'str', 'positional': True, 'help': 'the name of an agent', 'metavar': 'AGENT', 'required': True},
        ),
    },
    'agent.wait': {
        'help': 'Waits until the agent that a session serves listens on its port.',
        'effect': 'read', 'kind': 'operation',
        'parameters': (
            {'name': 'vm', 'type': 'str', 'positional': True, 'help': 'name, id or unique id prefix of a VM', 'metavar': 'VM', 'required': True},
            {'name': 'agent', 'type': 'str', 'positional': True, 'help': 'the name of an agent', 'metavar': 'AGENT', 'required': True},
            {'name': 'session', 'type': 'str', 'flag': 'session', 'help': 'the id of the session that serves it', 'hidden': True, 'required': True},
            {'name': 'timeout_s', 'type': 'float', 'flag': 'timeout', 'help': 'how long to wait', 'unit': 'seconds', 'default': 300.0},
        ),
    },
    'disk.usage': {
        'help': 'What images, kernels and VMs take of the disk: shared, of their own, and what could be had back.',
        'effect': 'read', 'kind': 'immediate',
        'parameters': (
        ),
    },
    'image.list': {
        'help': 'Lists the images on this machine.',
        'effect': 'read', 'kind': 'immediate',
        'parameters': (
        ),
    },
    'image.show': {
        'help': 'Everything known about one image.',
        'effect': 'read', 'kind': 'immediate',
        'parameters': (
            {'name': 'image', 'type': 'str', 'positional': True, 'help': 'name of an image', 'metavar': 'IMAGE', 'required': True},
        ),
    },
    'image.build': {
        'help': 'Builds an image: the default one, one with more packages, or one from a tar archive of any userland.',
        'effect': 'change', 'kind': 'operation',
        'parameters': (
            {'name': 'image', 'type': 'str', 'positional': True, 'help': 'name of the image; default the configured default', 'metavar': 'IMAGE'},
            {'name': 'from_tar', 'type': 'str', 'flag': 'from-tar', 'help': 'root file system as tar, plain or compressed'},
            {'name': 'packages', 'type': 'list', 'flag': 'package', 'help': 'additional package, repeatable'},
            {'name': 'kernel', 'type': 'str', 'flag': 'kernel', 'help': 'kernel that VMs of this image boot by default'},
            {'name': 'size_bytes', 'type': 'int', 'flag': 'size', 'help': 'size of the root file system', 'unit': 'bytes'},
            {'name': 'force', 'type': 'bool', 'flag': 'force', 'help': 'build again even if it is there', 'short': 'f', 'default': False},
        ),
    },
    'image.delete': {
        'help': 'Deletes an image that no VM uses.',
        'effect': 'destroy', 'kind': 'immediate',
        'parameters': (
            {'name': 'image', 'type': 'str', 'positional': True, 'help': 'name of an image', 'metavar': 'IMAGE', 'required': True},
        ),
    },
    'kernel.list': {
        'help': 'Lists the kernels on this machine, or all that can be pulled.',
        'effect': 'read', 'kind': 'immediate',
        'parameters': (
            {'name': 'available', 'type': 'bool', 'flag': 'available', 'help': 'those that can be pulled too', 'default': False},
        ),
    },
    'kernel.show': {
        'help': 'Everything known about one kernel.',
        'effect': 'read', 'kind': 'immediate',
        'parameters': (
            {'name': 'kernel', 'type': 'str', 'positional': True, 'help': 'name of a kernel', 'metavar': 'KERNEL', 'required': True},
        ),
    },
    'kernel.pull': {
        'help': 'Obtains a kernel of the catalog.',
        'effect': 'change', 'kind': 'operation',
        'parameters': (
            {'name': 'kernel', 'type': 'str', 'positional': True, 'help': 'name of a kernel', 'metavar': 'KERNEL', 'default': 'debian-cloud'},
            {'name': 'force', 'type': 'bool', 'flag': 'force', 'help': 'again even if it is there', 'short': 'f', 'default': False},
        ),
    },
    'kernel.delete': {
        'help': 'Deletes a kernel that no VM uses.',
        'effect': 'destroy', 'kind': 'immediate',
        'parameters': (
            {'name': 'kernel', 'type': 'str', 'positional': True, 'help': 'name of a kernel', 'metavar': 'KERNEL', 'required': True},
        ),
    },
    'vm.list': {
        'help': 'Lists VMs: the running ones, or all.',
        'effect': 'read', 'kind': 'immediate',
        'parameters': (
            {'name': 'all', 'type': 'bool', 'flag': 'all', 'help': 'stopped VMs too', 'short': 'a', 'default': False},
            {'name': 'labels', 'type': 'map', 'flag': 'label', 'help': 'KEY=VALUE: only those with this label, repeatable', 'short': 'l'},
        ),
    },
    'vm.show': {
        'help': 'Everything known about one VM: specification and where each size came from, state, timings, SSH.',
        'effect': 'read', 'kind': 'immediate',
        'parameters': (
            {'name': 'vm', 'type': 'str', 'positional': True, 'help': 'name, id or unique id prefix of a VM', 'metavar': 'VM', 'required': True},
        ),
    },
    'vm.create': {
        'help': 'Creates a VM, obtaining kernel and image when they are missing, and starts it unless told not to.',
        'effect': 'change', 'kind': 'operation',
        'parameters': (
            {'name': 'name', 'type': 'str', 'flag': 'name', 'help': 'a DNS label; generated when absent', 'short': 'n'},
            {'name': 'image', 'type': 'str', 'flag': 'image', 'help': 'image to boot; default: the configured one'},
            {'name': 'kernel', 'type': 'str', 'flag': 'kernel', 'help': "kernel to boot; default the image's own choice"},
            {'name': 'vcpus', 'type': 'int', 'flag': 'vcpu', 'help': 'number of virtual CPUs', 'metavar': 'N'},
            {'name': 'memory_mib', 'type': 'int', 'flag': 'memory', 'help': 'memory, for example 2G', 'unit': 'mib', 'short': 'm'},
            {'name': 'disk_size_bytes', 'type': 'int', 'flag': 'disk-size', 'help': 'size of the work disk at /root', 'unit': 'bytes'},
            {'name': 'system_overlay_size_bytes', 'type': 'int', 'flag': 'system-overlay-size', 'help': 'size of the root disk', 'unit': 'bytes'},
            {'name': 'nat', 'type': 'bool', 'flag': 'nat', 'help': 'let the guest reach the network outside', 'default': False},
            {'name': 'publish', 'type': 'list', 'flag': 'publish', 'help': '[IP:]HOST:GUEST[/udp]: lead a port of this host to the guest; repeatable', 'short': 'p', 'metavar': 'PORT'},
            {'name': 'labels', 'type': 'map', 'flag': 'label', 'help': 'KEY=VALUE, repeatable', 'short': 'l'},
            {'name': 'start', 'type': 'bool', 'flag': 'start', 'help': 'start it as well', 'hidden': True, 'default': True},
            {'name': 'ttl_s', 'type': 'float', 'flag': 'ttl', 'help': 'how long it may run, for example 2h: then it is stopped, or deleted if it was to be temporary', 'unit': 'seconds'},
            {'name': 'ephemeral', 'type': 'bool', 'flag': 'ephemeral', 'help': 'delete it when its first command ends', 'hidden': True, 'default': False},
            {'name': 'wait_ssh', 'type': 'bool', 'flag': 'wait-ssh', 'help': 'wait until sshd listens, too', 'default': False},
            {'name': 'wait_opencode', 'type': 'bool', 'flag': 'wait-opencode', 'help': 'wait until opencode listens, too', 'default': False},
        ),
    },
    'vm.start': {
        'help': 'Boots a stopped VM and waits for its agent.',
        'effect': 'change', 'kind': 'operation',
        'parameters': (
            {'name': 'vm', 'type': 'str', 'positional': True, 'help': 'name, id or unique id prefix of a VM', 'metavar': 'VM', 'required': True},
            {'name': 'ttl_s', 'type': 'float', 'flag': 'ttl', 'help': 'how long it may run, for example 2h: then it is stopped, or deleted if it was to be temporary', 'unit': 'seconds'},
            {'name': 'wait_ssh', 'type': 'bool', 'flag': 'wait-ssh', 'help': 'wait until sshd listens, too', 'default': False},
            {'name': 'wait_opencode', 'type': 'bool', 'flag': 'wait-opencode', 'help': 'wait until opencode listens, too', 'default': False},
        ),
    },
    'vm.stop': {
        'help': 'Asks the guest to sync and power off; kills it at the deadline.',
        'effect': 'change', 'kind': 'operation',
        'parameters': (
            {'name': 'vm', 'type': 'str', 'positional': True, 'help': 'name, id or unique id prefix of a VM', 'metavar': 'VM', 'required': True},
            {'name': 'timeout_s', 'type': 'float', 'flag': 'timeout', 'help': 'deadline before the VM is killed', 'unit': 'seconds', 'default': 30.0},
            {'name': 'reason', 'type': 'str', 'flag': 'reason', 'help': 'why, for vm show', 'hidden': True, 'default': ''},
        ),
    },
    'vm.restart': {
        'help': 'Stops and starts a VM.',
        'effect': 'change', 'kind': 'operation',
        'parameters': (
            {'name': 'vm', 'type': 'str', 'positional': True, 'help': 'name, id or unique id prefix of a VM', 'metavar': 'VM', 'required': True},
            {'name': 'timeout_s', 'type': 'float', 'flag': 'timeout', 'help': 'deadline before the VM is killed', 'unit': 'seconds', 'default': 30.0},
        ),
    },
    'vm.kill': {
        'help': 'Ends a VM at once, like pulling the plug.',
        'effect': 'destroy', 'kind': 'operation',
        'parameters': (
            {'name': 'vm', 'type': 'str', 'positional': True, 'help': 'name, id or unique id prefix of a VM', 'metavar': 'VM', 'required': True},
        ),
    },
    'vm.delete': {
        'help': 'Deletes a stopped VM and its disks.',
        'effect': 'destroy', 'kind': 'operation',
        'parameters': (
            {'name': 'vm', 'type': 'str', 'positional': True, 'help': 'name, id or unique id prefix of a VM', 'metavar': 'VM', 'required': True},
            {'name': 'force', 'type': 'bool', 'flag': 'force', 'help': 'a running VM too', 'short': 'f', 'default': False},
        ),
    },
    'vm.set': {
        'help': 'Changes a VM: labels, time to live and, where it is on the bridge, NAT at once; its sizes while it is stopped.',
        'effect': 'change', 'kind': 'immediate',
        'parameters': (
            {'name': 'vm', 'type': 'str', 'positional': True, 'help': 'name, id or unique id prefix of a VM', 'metavar': 'VM', 'required': True},
            {'name': 'nat', 'type': 'bool', 'flag': 'nat', 'help': 'let the guest reach the network outside', 'negatable': True},
            {'name': 'vcpus', 'type': 'int', 'flag': 'vcpu', 'help': 'number of virtual CPUs', 'metavar': 'N'},
            {'name': 'memory_mib', 'type': 'int', 'flag': 'memory', 'help': 'memory, for example 2G', 'unit': 'mib', 'short': 'm'},
            {'name': 'disk_size_bytes', 'type': 'int', 'flag': 'disk-size', 'help': 'size of the work disk at /root; it only grows', 'unit': 'bytes'},
            {'name': 'ttl_s', 'type': 'float', 'flag': 'ttl', 'help': 'how long it may run from now on, for example 4h', 'unit': 'seconds'},
            {'name': 'no_ttl', 'type': 'bool', 'flag': 'no-ttl', 'help': 'let it run for as long as it likes', 'default': False},
            {'name': 'labels', 'type': 'map', 'flag': 'label', 'help': 'KEY=VALUE, repeatable', 'short': 'l'},
            {'name': 'unlabel', 'type': 'list', 'flag': 'unlabel', 'help': 'take the label KEY away, repeatable', 'metavar': 'KEY'},
        ),
    },
    'vm.rename': {
        'help': 'Gives a VM another name: at once for banger and where names resolve, in the guest at its next start.',
        'effect': 'change', 'kind': 'immediate',
        'parameters': (
            {'name': 'vm', 'type': 'str', 'positional': True, 'help': 'name, id or unique id prefix of a VM', 'metavar': 'VM', 'required': True},
            {'name': 'name', 'type': 'str', 'positional': True, 'help': 'the new name, a DNS label', 'metavar': 'NAME', 'required': True},
        ),
    },
    'vm.publish': {
        'help': 'Leads a port of this host to a running VM, from now on and at its next starts.',
        'effect': 'change', 'kind': 'immediate',
        'parameters': (
            {'name': 'vm', 'type': 'str', 'positional': True, 'help': 'name, id or unique id prefix of a VM', 'metavar': 'VM', 'required': True},
            {'name': 'port', 'type': 'str', 'positional': True, 'help': '[IP:]HOST:GUEST[/udp], on loopback unless IP says otherwise', 'metavar': 'PORT', 'required': True},
        ),
    },
    'vm.unpublish': {
        'help': 'Takes a published port back.',
        'effect': 'change', 'kind': 'immediate',
        'parameters': (
            {'name': 'vm', 'type': 'str', 'positional': True, 'help': 'name, id or unique id prefix of a VM', 'metavar': 'VM', 'required': True},
            {'name': 'port', 'type': 'str', 'positional': True, 'help': '[IP:]HOST:GUEST[/udp], on loopback unless IP says otherwise', 'metavar': 'PORT', 'required': True},
        ),
    },
    'vm.prune': {
        'help': 'Deletes all VMs that are not running, or those of them that the filters name.',
        'effect': 'destroy', 'kind': 'immediate',
        'parameters': (
            {'name': 'dry_run', 'type': 'bool', 'flag': 'dry-run', 'help': 'only tell what would go, and why', 'default': False},
            {'name': 'labels', 'type': 'map', 'flag': 'label', 'help': 'KEY=VALUE: only those with this label, repeatable', 'short': 'l'},
            {'name': 'older_than_s', 'type': 'float', 'flag': 'older-than', 'help': 'only those that nobody has used for so long, for example 7d', 'unit': 'seconds'},
        ),
    },
    'vm.ssh': {
        'help': "Where a VM's sshd is reached; waits until it listens.",
        'effect': 'read', 'kind': 'immediate',
        'parameters': (
            {'name': 'vm', 'type': 'str', 'positional': True, 'help': 'name, id or unique id prefix of a VM', 'metavar': 'VM', 'required': True},
            {'name': 'timeout_s', 'type': 'float', 'flag': 'timeout', 'help': 'how long to wait for sshd', 'unit': 'seconds', 'default': 60.0},
        ),
    },
    'vm.logs': {
        'help': 'The serial console of the guest, the words of its VMM, or those of the last installation of tools.',
        'effect': 'read', 'kind': 'immediate',
        'parameters': (
            {'name': 'vm', 'type': 'str', 'positional': True, 'help': 'name, id or unique id prefix of a VM', 'metavar': 'VM', 'required': True},
            {'name': 'source', 'type': 'str', 'flag': 'source', 'help': 'serial, vmm or tooling', 'choices': ('serial', 'vmm', 'tooling'), 'default': 'serial'},
            {'name': 'tail_lines', 'type': 'int', 'flag': 'tail', 'help': 'only the last N lines', 'short': 'n', 'metavar': 'N'},
        ),
    },
    'vm.exec': {
        'help': "Runs a command in the guest. The connection turns into a stream of frames (see the protocol's reference).",
        'effect': 'change', 'kind': 'stream',
        'parameters': (
            {'name': 'vm', 'type': 'str', 'positional': True, 'help': 'name, id or unique id prefix of a VM', 'metavar': 'VM', 'required': True},
            {'name': 'argv', 'type': 'list', 'positional': True, 'help': 'the command', 'metavar': 'CMD', 'required': True},
            {'name': 'env', 'type': 'list', 'flag': 'env', 'help': 'KEY=VALUE, repeatable', 'short': 'e'},
            {'name': 'cwd', 'type': 'str', 'flag': 'workdir', 'help': "working directory; default the workspace, or the user's home", 'short': 'w'},
            {'name': 'guest_path', 'type': 'str', 'flag': 'guest-path', 'help': 'run here as in the workspace, with its tools', 'metavar': 'PATH'},
            {'name': 'user', 'type': 'str', 'flag': 'user', 'help': 'user name or uid[:gid]; default root', 'short': 'u'},
            {'name': 'pty', 'type': 'bool', 'flag': 'tty', 'help': 'allocate a terminal', 'short': 't', 'default': False},
            {'name': 'stdin', 'type': 'bool', 'flag': 'interactive', 'help': 'keep stdin open', 'short': 'i', 'default': False},
            {'name': 'rows', 'type': 'int', 'flag': 'rows', 'help': 'terminal height', 'hidden': True},
            {'name': 'columns', 'type': 'int', 'flag': 'columns', 'help': 'terminal width', 'hidden': True},
            {'name': 'delete_after', 'type': 'bool', 'flag': 'delete-after', 'help': 'delete the VM when the command ends', 'hidden': True, 'default': False},
        ),
    },
    'session.start': {
        'help': 'Starts a command in a running VM that goes on by itself, whoever comes and goes.',
        'effect': 'change', 'kind': 'immediate',
        'parameters': (
            {'name': 'vm', 'type': 'str', 'positional': True, 'help': 'name, id or unique id prefix of a VM', 'metavar': 'VM', 'required': True},
            {'name': 'argv', 'type': 'list', 'positional': True, 'help': 'the command', 'metavar': 'CMD', 'required': True},
            {'name': 'name', 'type': 'str', 'flag': 'name', 'help': 'a name of its own in its VM; its id when absent', 'unit': 'session', 'metavar': 'NAME'},
            {'name': 'env', 'type': 'list', 'flag': 'env', 'help': 'KEY=VALUE, repeatable', 'short': 'e'},
            {'name': 'cwd', 'type': 'str', 'flag': 'workdir', 'help': "working directory; default the workspace, or the user's home", 'short': 'w'},
            {'name': 'user', 'type': 'str', 'flag': 'user', 'help': 'user name or uid[:gid]; default root', 'short': 'u'},
            {'name': 'pty', 'type': 'bool', 'flag': 'tty', 'help': 'give it a terminal', 'short': 't', 'default': False},
            {'name': 'stdin', 'type': 'bool', 'flag': 'interactive', 'help': 'give it an input that can be written to', 'short': 'i', 'default': False},
            {'name': 'rows', 'type': 'int', 'flag': 'rows', 'help': 'terminal height', 'hidden': True},
            {'name': 'columns', 'type': 'int', 'flag': 'columns', 'help': 'terminal width', 'hidden': True},
            {'name': 'tags', 'type': 'map', 'flag': 'tag', 'help': 'KEY=VALUE, repeatable'},
            {'name': 'require', 'type': 'list', 'flag': 'require', 'help': 'refuse to start unless the guest has this command, repeatable', 'metavar': 'CMD'},
            {'name': 'scrollback_bytes', 'type': 'int', 'flag': 'scrollback', 'help': 'how much of its output the guest keeps (default 1M, at most 16M)', 'unit': 'bytes'},
        ),
    },
    'session.list': {
        'help': 'Lists the sessions of all VMs, or of one.',
        'effect': 'read', 'kind': 'immediate',
        'parameters': (
            {'name': 'vm', 'type': 'str', 'positional': True, 'help': 'only those of this VM', 'metavar': 'VM'},
            {'name': 'running', 'type': 'bool', 'flag': 'running', 'help': 'only those that have not ended', 'short': 'r', 'default': False},
            {'name': 'tags', 'type': 'map', 'flag': 'tag', 'help': 'KEY=VALUE: only those with this tag, repeatable'},
        ),
    },
    'session.show': {
        'help': 'Everything known about one session.',
        'effect': 'read', 'kind': 'immediate',
        'parameters': (
            {'name': 'session', 'type': 'str', 'positional': True, 'help': 'VM/NAME, an id or its prefix, or a name that is unique', 'metavar': 'SESSION', 'required': True},
        ),
    },
    'session.attach': {
        'help': "Joins a session's output, and its input unless told not to. Leaving does not end it.",
        'effect': 'change', 'kind': 'stream',
        'parameters': (
            {'name': 'session', 'type': 'str', 'positional': True, 'help': 'VM/NAME, an id or its prefix, or a name that is unique', 'metavar': 'SESSION', 'required': True},
            {'name': 'read_only', 'type': 'bool', 'flag': 'read-only', 'help': 'only look; its input stays free', 'default': False},
            {'name': 'steal', 'type': 'bool', 'flag': 'steal', 'help': 'take the input over from whoever has it', 'default': False},
            {'name': 'since', 'type': 'int', 'flag': 'since', 'help': 'begin at this sequence number; default all that is kept', 'metavar': 'N'},
            {'name': 'rows', 'type': 'int', 'flag': 'rows', 'help': 'terminal height', 'hidden': True},
            {'name': 'columns', 'type': 'int', 'flag': 'columns', 'help': 'terminal width', 'hidden': True},
        ),
    },
    'session.logs': {
        'help': 'What a session has written, as far as it is kept.',
        'effect': 'read', 'kind': 'stream',
        'parameters': (
            {'name': 'session', 'type': 'str', 'positional': True, 'help': 'VM/NAME, an id or its prefix, or a name that is unique', 'metavar': 'SESSION', 'required': True},
            {'name': 'stream', 'type': 'str', 'flag': 'stream', 'help': 'stdout, stderr or both', 'choices': ('both', 'stdout', 'stderr'), 'hidden': True, 'default': 'both'},
            {'name': 'tail_lines', 'type': 'int', 'flag': 'tail', 'help': 'only the last N lines', 'short': 'n', 'metavar': 'N'},
            {'name': 'follow', 'type': 'bool', 'flag': 'follow', 'help': 'go on with what it writes, until it ends', 'short': 'f', 'default': False},
            {'name': 'since', 'type': 'int', 'flag': 'since', 'help': 'begin at this sequence number', 'metavar': 'N'},
        ),
    },
    'session.send': {
        'help': "Writes to a session's input: a text, or stdin up to its end.",
        'effect': 'change', 'kind': 'stream',
        'parameters': (
            {'name': 'session', 'type': 'str', 'positional': True, 'help': 'VM/NAME, an id or its prefix, or a name that is unique', 'metavar': 'SESSION', 'required': True},
            {'name': 'eof', 'type': 'bool', 'flag': 'eof', 'help': 'then end its input; on a terminal, type Ctrl-D', 'default': False},
            {'name': 'steal', 'type': 'bool', 'flag': 'steal', 'help': 'take the input over from whoever has it', 'default': False},
        ),
    },
    'session.resize': {
        'help': "Changes the size of a session's terminal.",
        'effect': 'change', 'kind': 'immediate',
        'parameters': (
            {'name': 'session', 'type': 'str', 'positional': True, 'help': 'VM/NAME, an id or its prefix, or a name that is unique', 'metavar': 'SESSION', 'required': True},
            {'name': 'rows', 'type': 'int', 'positional': True, 'help': 'lines', 'metavar': 'ROWS', 'required': True},
            {'name': 'columns', 'type': 'int', 'positional': True, 'help': 'characters in a line', 'metavar': 'COLUMNS', 'required': True},
        ),
    },
    'session.stop': {
        'help': "Asks a session's processes to end, kills them when the grace is over, and waits for that.",
        'effect': 'change', 'kind': 'immediate',
        'parameters': (
            {'name': 'session', 'type': 'str', 'positional': True, 'help': 'VM/NAME, an id or its prefix, or a name that is unique', 'metavar': 'SESSION', 'required': True},
            {'name': 'grace_s', 'type': 'float', 'flag': 'grace', 'help': 'how long they may take', 'unit': 'seconds', 'default': 10.0},
        ),
    },
    'session.kill': {
        'help': "Sends a signal to a session's processes, KILL unless another is named.",
        'effect': 'destroy', 'kind': 'immediate',
        'parameters': (
            {'name': 'session', 'type': 'str', 'positional': True, 'help': 'VM/NAME, an id or its prefix, or a name that is unique', 'metavar': 'SESSION', 'required': True},
            {'name': 'signal', 'type': 'str', 'flag': 'signal', 'help': 'a name or a number, for example INT', 'short': 's', 'metavar': 'SIGNAL', 'default': 'KILL'},
        ),
    },
    'session.remove': {
        'help': 'Forgets a session that has ended, and what is kept of its output.',
        'effect': 'destroy', 'kind': 'immediate',
        'parameters': (
            {'name': 'session', 'type': 'str', 'positional': True, 'help': 'VM/NAME, an id or its prefix, or a name that is unique', 'metavar': 'SESSION', 'required': True},
            {'name': 'force', 'type': 'bool', 'flag': 'force', 'help': 'kill it first, if it has not ended', 'short': 'f', 'default': False},
        ),
    },
    'ssh.settings': {
        'help': 'The key that VMs let in, made if it is missing, and the zone of their names.',
        'effect': 'change', 'kind': 'immediate',
        'parameters': (
        ),
    },
    'daemon.status': {
        'help': 'Version, pid, uptime and load of the daemon.',
        'effect': 'read', 'kind': 'immediate',
        'parameters': (
        ),
    },
    'daemon.stop': {
        'help': 'Shuts the daemon down. Running VMs are stopped first, or run on and are taken over by the next daemon.',
        'effect': 'destroy', 'kind': 'immediate',
        'parameters': (
            {'name': 'keep_vms', 'type': 'bool', 'flag': 'keep-vms', 'help': 'leave running VMs to the next daemon', 'default': False},
        ),
    },
    'daemon.reconcile': {
        'help': 'Makes the host what the records say, as every start of the daemon does; VMs that run well are not touched.',
        'effect': 'change', 'kind': 'immediate',
        'parameters': (
        ),
    },
    'daemon.ping': {
        'help': 'Answers.',
        'effect': 'read', 'kind': 'immediate',
        'parameters': (
        ),
    },
    'doctor.run': {
        'help': 'Looks at everything banger needs, changes nothing, and says how to get what is missing.',
        'effect': 'read', 'kind': 'immediate',
        'parameters': (
        ),
    },
    'operation.list': {
        'help': 'Lists operations, the newest first, without their results. Kept are the newest 200 that have ended within 14 days, what runs, and what has an unknown outcome.',
        'effect': 'read', 'kind': 'immediate',
        'parameters': (
            {'name': 'running', 'type': 'bool', 'flag': 'running', 'help': 'only those that run', 'default': False},
            {'name': 'all', 'type': 'bool', 'flag': 'all', 'help': 'every one that is kept', 'short': 'a', 'default': False},
            {'name': 'of_kind', 'type': 'str', 'flag': 'kind', 'help': 'only this method, for example vm.create', 'metavar': 'METHOD'},
            {'name': 'subject', 'type': 'str', 'flag': 'subject', 'help': 'only those on this VM, image or kernel', 'metavar': 'NAME'},
            {'name': 'limit', 'type': 'int', 'flag': 'limit', 'help': 'at most so many', 'short': 'n', 'metavar': 'N', 'default': 50},
        ),
    },
    'operation.show': {
        'help': 'One operation with its stages, its result or its error.',
        'effect': 'read', 'kind': 'immediate',
        'parameters': (
            {'name': 'operation', 'type': 'str', 'positional': True, 'help': 'id of an operation', 'metavar': 'OPERATION', 'required': True},
        ),
    },
    'operation.watch': {
        'help': 'Follows an operation until it ends; whoever watches may leave.',
        'effect': 'read', 'kind': 'operation',
        'parameters': (
            {'name': 'operation', 'type': 'str', 'positional': True, 'help': 'id of an operation', 'metavar': 'OPERATION', 'required': True},
        ),
    },
    'operation.cancel': {
        'help': 'Cancels an operation and undoes what it did. Returns at once; the undo can be watched, or waited for.',
        'effect': 'change', 'kind': 'immediate',
        'parameters': (
            {'name': 'operation', 'type': 'str', 'positional': True, 'help': 'id of an operation', 'metavar': 'OPERATION', 'required': True},
            {'name': 'wait', 'type': 'bool', 'flag': 'wait', 'help': 'until all is undone', 'default': False},
        ),
    },
    'complete': {
        'help': 'Names for shell completion: of VMs, images, kernels or operations.',
        'effect': 'read', 'kind': 'immediate',
        'parameters': (
            {'name': 'what', 'type': 'str', 'positional': True, 'help': 'vm, image, kernel or operation', 'required': True},
        ),
    },
    'tooling.plan': {
        'help': 'Which tools a repository wants, and which of its files says so.',
        'effect': 'read', 'kind': 'immediate',
        'parameters': (
            {'name': 'path', 'type': 'str', 'positional': True, 'help': 'a directory of the repository; default here', 'metavar': 'PATH', 'default': ''},
        ),
    },
    'tooling.install': {
        'help': "Installs the tools that a VM's workspace wants, by mise in the guest. Once more fetches nothing.",
        'effect': 'change', 'kind': 'operation',
        'parameters': (
            {'name': 'vm', 'type': 'str', 'positional': True, 'help': 'name, id or unique id prefix of a VM', 'metavar': 'VM', 'required': True},
            {'name': 'timeout_s', 'type': 'float', 'flag': 'bootstrap-timeout', 'help': 'give up after so long; default [tooling] timeout', 'unit': 'seconds'},
        ),
    },
    'vm.put': {
        'help': "Copies into a running VM. The caller's stdin is a tar stream, or a file's bytes. `what` is what will come: `file` (a tar stream with one file or link), `tree` (one with one directory), or `any` (a tar stream if the path is a directory, a file's bytes otherwise). The stream's first line answers with `directory`, where the entries go, and `name`, which the one entry at the top must have, or null: it keeps its own, or there may be several. For a file's bytes it answers with `file`.",
        'effect': 'change', 'kind': 'stream',
        'parameters': (
            {'name': 'vm', 'type': 'str', 'positional': True, 'help': 'name, id or unique id prefix of a VM', 'metavar': 'VM', 'required': True},
            {'name': 'path', 'type': 'str', 'flag': 'path', 'help': 'path in the guest', 'metavar': 'PATH', 'required': True},
            {'name': 'what', 'type': 'str', 'flag': 'what', 'help': 'file, tree or any', 'hidden': True, 'required': True},
            {'name': 'into', 'type': 'bool', 'flag': 'into', 'help': 'the path must be a directory', 'hidden': True, 'default': False},
            {'name': 'parents', 'type': 'bool', 'flag': 'parents', 'help': 'make the directories above it as well', 'short': 'p', 'default': False},
            {'name': 'archive', 'type': 'bool', 'flag': 'archive', 'help': "keep the files' owners, as numbers", 'short': 'a', 'default': False},
            {'name': 'user', 'type': 'str', 'flag': 'user', 'help': 'user name or uid[:gid] in the guest: whose home relative paths begin at, and whose the files become', 'short': 'u'},
            {'name': 'mode', 'type': 'int', 'flag': 'mode', 'help': 'mode of a file that comes as bytes', 'hidden': True, 'default': 420},
        ),
    },
    'vm.get': {
        'help': "Copies out of a running VM. The caller's stdout is a tar stream, or a file's bytes if it is to be plain. The stream's first line answers with `what` (`file`, `directory`, `link`, or `bytes`), its `name`, its `size_bytes` if that is known, and `top`: whether everything is below an entry of that name.",
        'effect': 'read', 'kind': 'stream',
        'parameters': (
            {'name': 'vm', 'type': 'str', 'positional': True, 'help': 'name, id or unique id prefix of a VM', 'metavar': 'VM', 'required': True},
            {'name': 'path', 'type': 'str', 'flag': 'path', 'help': 'path in the guest', 'metavar': 'PATH', 'required': True},
            {'name': 'follow', 'type': 'bool', 'flag': 'follow', 'help': 'if it is a symbolic link, copy what it leads to', 'short': 'L', 'default': False},
            {'name': 'plain', 'type': 'bool', 'flag': 'plain', 'help': "a file's bytes instead of a tar stream", 'hidden': True, 'default': False},
            {'name': 'user', 'type': 'str', 'flag': 'user', 'help': 'user name or uid[:gid] in the guest: whose home relative paths begin at, and whose the files become', 'short': 'u'},
        ),
    },
    'vm.stats': {
        'help': 'CPU, memory, disk, network and block I/O of the running VMs, or of those named.',
        'effect': 'read', 'kind': 'immediate',
        'parameters': (
            {'name': 'vms', 'type': 'list', 'positional': True, 'help': 'name, id or unique id prefix of a VM', 'metavar': 'VM'},
        ),
    },
    'vm.ports': {
        'help': 'What listens in a guest, with URLs for what this host reaches of it.',
        'effect': 'read', 'kind': 'immediate',
        'parameters': (
            {'name': 'vm', 'type': 'str', 'positional': True, 'help': 'name, id or unique id prefix of a VM', 'metavar': 'VM', 'required': True},
        ),
    },
    'vm.health': {
        'help': "Asks the guest's agent how it is: load, memory, file systems, clock, sshd.",
        'effect': 'read', 'kind': 'immediate',
        'parameters': (
            {'name': 'vm', 'type': 'str', 'positional': True, 'help': 'name, id or unique id prefix of a VM', 'metavar': 'VM', 'required': True},
        ),
    },
    'workspace.plan': {
        'help': 'What would go into a guest, exactly, without anything going.',
        'effect': 'read', 'kind': 'immediate',
        'parameters': (
            {'name': 'path', 'type': 'str', 'positional': True, 'help': 'a directory in a git repository on the host; default: the one that the VM has, if it has one', 'metavar': 'PATH'},
            {'name': 'vm', 'type': 'str', 'flag': 'vm', 'help': 'a running VM: only what it lacks', 'metavar': 'VM'},
            {'name': 'full', 'type': 'bool', 'flag': 'full', 'help': "the branch's whole history and the submodules too; otherwise only its newest commit", 'default': False},
            {'name': 'depth', 'type': 'int', 'flag': 'depth', 'help': 'so many of the newest commits instead of one', 'metavar': 'N'},
            {'name': 'untracked', 'type': 'bool', 'flag': 'untracked', 'help': 'files that git does not track and does not ignore, too', 'default': False},
            {'name': 'include', 'type': 'list', 'flag': 'include', 'help': 'this file or directory too, whether git tracks or ignores it; repeatable', 'metavar': 'FILE'},
            {'name': 'branch', 'type': 'str', 'flag': 'branch', 'help': "the branch in the guest; default the host's", 'metavar': 'NAME'},
            {'name': 'commit', 'type': 'str', 'flag': 'from', 'help': "begin at this commit of the host's, without changes that are not committed", 'metavar': 'COMMIT'},
            {'name': 'guest_path', 'type': 'str', 'flag': 'guest-path', 'help': "where it goes in the guest; default /root/ and the directory's name", 'metavar': 'PATH'},
            {'name': 'measure', 'type': 'bool', 'flag': 'measure', 'help': 'pack everything to count the bytes', 'hidden': True, 'default': True},
        ),
    },
    'workspace.prepare': {
        'help': 'Brings a repository into a running VM, or brings what is there up to date.',
        'effect': 'change', 'kind': 'operation',
        'parameters': (
            {'name': 'vm', 'type': 'str', 'positional': True, 'help': 'name, id or unique id prefix of a VM', 'metavar': 'VM', 'required': True},
            {'name': 'path', 'type': 'str', 'positional': True, 'help': 'a directory in a git repository on the host; default: the one that the VM has, if it has one', 'metavar': 'PATH'},
            {'name': 'full', 'type': 'bool', 'flag': 'full', 'help': "the branch's whole history and the submodules too; otherwise only its newest commit", 'default': False},
            {'name': 'depth', 'type': 'int', 'flag': 'depth', 'help': 'so many of the newest commits instead of one', 'metavar': 'N'},
            {'name': 'untracked', 'type': 'bool', 'flag': 'untracked', 'help': 'files that git does not track and does not ignore, too', 'default': False},
            {'name': 'include', 'type': 'list', 'flag': 'include', 'help': 'this file or directory too, whether git tracks or ignores it; repeatable', 'metavar': 'FILE'},
            {'name': 'branch', 'type': 'str', 'flag': 'branch', 'help': "the branch in the guest; default the host's", 'metavar': 'NAME'},
            {'name': 'commit', 'type': 'str', 'flag': 'from', 'help': "begin at this commit of the host's, without changes that are not committed", 'metavar': 'COMMIT'},
            {'name': 'guest_path', 'type': 'str', 'flag': 'guest-path', 'help': "where it goes in the guest; default /root/ and the directory's name", 'metavar': 'PATH'},
            {'name': 'read_only', 'type': 'bool', 'flag': 'read-only', 'help': 'nothing in the guest can change it', 'default': False},
            {'name': 'force', 'type': 'bool', 'flag': 'force', 'help': "even where that throws away work of the guest's", 'short': 'f', 'default': False},
        ),
    },
    'workspace.status': {
        'help': "What a VM's workspace came from, and what has changed since on both sides.",
        'effect': 'read', 'kind': 'immediate',
        'parameters': (
            {'name': 'vm', 'type': 'str', 'positional': True, 'help': 'name, id or unique id prefix of a VM', 'metavar': 'VM', 'required': True},
            {'name': 'quick', 'type': 'bool', 'flag': 'quick', 'help': 'only whether the host has another commit checked out', 'hidden': True, 'default': False},
        ),
    },
    'workspace.export': {
        'help': 'Writes what the guest has changed as a patch for `git apply`, or its commits for `git am`, to stdout.',
        'effect': 'read', 'kind': 'stream',
        'parameters': (
            {'name': 'vm', 'type': 'str', 'positional': True, 'help': 'name, id or unique id prefix of a VM', 'metavar': 'VM', 'required': True},
            {'name': 'base_commit', 'type': 'str', 'flag': 'base-commit', 'help': "against this commit of the guest's instead of what was prepared", 'metavar': 'COMMIT'},
            {'name': 'commits', 'type': 'bool', 'flag': 'commits', 'help': "the guest's commits, as mail for git am", 'default': False},
            {'name': 'max_size_bytes', 'type': 'int', 'flag': 'max-size', 'help': 'take no more than this from the guest; default 1G', 'unit': 'bytes'},
        ),
    },
    'workspace.diff': {
        'help': 'Shows what the guest has changed since its workspace was prepared, committed or not.',
        'effect': 'read', 'kind': 'stream',
        'parameters': (
            {'name': 'vm', 'type': 'str', 'positional': True, 'help': 'name, id or unique id prefix of a VM', 'metavar': 'VM', 'required': True},
            {'name': 'stat', 'type': 'bool', 'flag': 'stat', 'help': 'only how much of which file', 'default': False},
            {'name': 'name_only', 'type': 'bool', 'flag': 'name-only', 'help': 'only the names of the files', 'default': False},
        ),
    },
    'workspace.pull': {
        'help': "Brings the guest's commits to the host's repository, as refs below refs/banger/VM/, and says what is in them. Nothing is checked out, merged or run.",
        'effect': 'change', 'kind': 'operation',
        'parameters': (
            {'name': 'vm', 'type': 'str', 'positional': True, 'help': 'name, id or unique id prefix of a VM', 'metavar': 'VM', 'required': True},
            {'name': 'branches', 'type': 'list', 'flag': 'branch', 'help': "only this branch of the guest's; repeatable", 'short': 'b', 'metavar': 'NAME'},
            {'name': 'force', 'type': 'bool', 'flag': 'force', 'help': 'even where the guest has rewritten what was pulled before', 'short': 'f', 'default': False},
            {'name': 'max_size_bytes', 'type': 'int', 'flag': 'max-size', 'help': 'take no more than this from the guest; default 1G', 'unit': 'bytes'},
        ),
    },
}
