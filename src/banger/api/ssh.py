"""What an SSH client has to know of all VMs together."""

import msgspec

from banger.api.method import Effect, Request, declare


class SshSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`identity_file` is the owner's private key, which every VM lets in; VMs are called NAME.`zone`."""

    identity_file: str
    zone: str


@declare("ssh.settings", effect=Effect.CHANGE)
class SshSettingsShow(Request[SshSettings]):
    """The key that VMs let in, made if it is missing, and the zone of their names."""
