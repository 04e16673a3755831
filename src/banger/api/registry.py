"""All methods together: importing this module fills the registry."""

from banger.api import agents, disk, images, sessions, ssh, system, tooling, transfer, usage, vm, workspaces  # noqa: F401 (imported for their declarations)
from banger.api.method import METHODS

__all__ = ["METHODS"]
