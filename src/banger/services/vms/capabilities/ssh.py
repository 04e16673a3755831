"""SSH: a host key that is made here, so that it is known before the first connection, and the owner's key inside."""

from collections.abc import Callable

import msgspec

from banger.base.files import write_atomic
from banger.base.problem import Code, Problem
from banger.base.progress import stage
from banger.guest.agent import Agent
from banger.guest.bootconfig import BootConfig, GuestFile
from banger.guest.sshkeys import KeyPair, make_key_pair, render_known_host
from banger.model.image import ImageManifest
from banger.model.vm import VmRecord
from banger.network.user import SSH_PORT
from banger.services.vms.capabilities.contract import Capability, GuestBoot, Started
from banger.services.vms.layout import Layout

HOST_KEY_PATH = "/etc/ssh/ssh_host_ed25519_key"
AUTHORIZED_KEYS_PATH = "/root/.ssh/authorized_keys"
_WAIT_S = 60.0


class Ssh(Capability):
    name = "SSH"

    def __init__(self, owner_key: Callable[[], KeyPair]) -> None:
        self._owner_key = owner_key

    def prepare(self, vm: VmRecord, layout: Layout, image: ImageManifest) -> None:
        _write_host_key(vm, layout)

    def guest(self, boot: GuestBoot, config: BootConfig) -> BootConfig:
        key = boot.layout.host_key
        if not all(path.is_file() for path in (key, key.with_suffix(".pub"), boot.layout.known_hosts)):
            _write_host_key(boot.vm, boot.layout)  # somebody has removed it: this boot brings another one
        files = (
            GuestFile(path=HOST_KEY_PATH, content=key.read_bytes(), mode=0o600),
            GuestFile(path=HOST_KEY_PATH + ".pub", content=key.with_suffix(".pub").read_bytes()),
            GuestFile(
                path=AUTHORIZED_KEYS_PATH, content=self._owner_key().public.encode() + b"\n", mode=0o600
            ),
        )
        return msgspec.structs.replace(config, files=(*config.files, *files))

    async def started(self, started: Started) -> None:
        if started.wants.ssh:
            with stage(started.progress, "wait for ssh"):
                await wait_ssh(started.agent, started.vm, timeout_s=_WAIT_S)


def _write_host_key(vm: VmRecord, layout: Layout) -> None:
    key = make_key_pair(vm.name)
    write_atomic(layout.host_key, key.private)
    write_atomic(layout.host_key.with_suffix(".pub"), key.public.encode() + b"\n")
    write_atomic(layout.known_hosts, render_known_host((host_key_alias(vm.id),), key.public).encode())


async def wait_ssh(agent: Agent, vm: VmRecord, *, timeout_s: float) -> None:
    """Returns when sshd listens in the guest. Raises `unavailable` when it does not in time."""
    if not await agent.wait_port(SSH_PORT, timeout_s=timeout_s):
        raise Problem(
            Code.UNAVAILABLE,
            f"nothing listens on the SSH port in {vm.name} after {timeout_s:.0f} s",
            hint=f"banger vm exec {vm.name} -- sh",
        )


def host_key_alias(vm_id: str) -> str:
    """The name under which ssh knows a guest, whatever address or port it has at the time."""
    return f"banger-{vm_id}"
