"""What an SSH client needs to be told once, for VMs that are and VMs that will be. Owns nothing."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from banger.api.ssh import SshSettings, SshSettingsShow
from banger.network.bridge import ZONE


class AccessService:
    def __init__(self, owner_key_path: Path, ensure_owner_key: Callable[[], object]) -> None:
        self._owner_key_path = owner_key_path
        self._ensure_owner_key = ensure_owner_key

    async def show_settings(self, request: SshSettingsShow) -> SshSettings:
        """The key is there afterwards: ssh refuses a file that is not."""
        await asyncio.to_thread(self._ensure_owner_key)
        return SshSettings(identity_file=str(self._owner_key_path), zone=ZONE)
