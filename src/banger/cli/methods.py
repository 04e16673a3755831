"""Every method of the daemon as plain literals: written by tools/generate.py; do not edit."""

# fmt: off
# ruff: noqa: E501
from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

METHODS: dict[str, dict[str, Any]] = {
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
        'help': 'The serial console of the guest, or the words of its VMM.',
        'effect': 'read', 'kind': 'immediate',
        'parameters': (
            {'name': 'vm', 'type': 'str', 'positional': True, 'help': 'name, id or unique id prefix of a VM', 'metavar': 'VM', 'required': True},
            {'name': 'source', 'type': 'str', 'flag': 'source', 'help': 'serial or vmm', 'choices': ('serial', 'vmm'), 'default': 'serial'},
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
            {'name': 'cwd', 'type': 'str', 'flag': 'workdir', 'help': "working directory; default the user's home", 'short': 'w'},
            {'name': 'user', 'type': 'str', 'flag': 'user', 'help': 'user name or uid[:gid]; default root', 'short': 'u'},
            {'name': 'pty', 'type': 'bool', 'flag': 'tty', 'help': 'allocate a terminal', 'short': 't', 'default': False},
            {'name': 'stdin', 'type': 'bool', 'flag': 'interactive', 'help': 'keep stdin open', 'short': 'i', 'default': False},
            {'name': 'rows', 'type': 'int', 'flag': 'rows', 'help': 'terminal height', 'hidden': True},
            {'name': 'columns', 'type': 'int', 'flag': 'columns', 'help': 'terminal width', 'hidden': True},
            {'name': 'delete_after', 'type': 'bool', 'flag': 'delete-after', 'help': 'delete the VM when the command ends', 'hidden': True, 'default': False},
        ),
    },
}
