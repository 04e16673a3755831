"""A workspace as a record: a repository of the host's as it was brought into a VM. Pure."""

from typing import Literal

import msgspec

WorkspaceMode = Literal["shallow", "full"]


class Workspace(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the store, at most one for each VM. `subdirectory` is where in the repository work begins;
    `launcher` and `environment` are what tools in the guest need."""

    vm_id: str
    host_root: str
    guest_path: str
    mode: WorkspaceMode = "shallow"
    subdirectory: str = ""
    branch: str = ""
    head_commit: str = ""
    base_commit: str = ""
    overlay_digest: str = ""
    read_only: bool = False
    prepared_at: str = ""
    launcher: tuple[str, ...] = ()
    environment: dict[str, str] = {}

    @property
    def directory(self) -> str:
        """Where commands begin."""
        return f"{self.guest_path}/{self.subdirectory}" if self.subdirectory else self.guest_path
