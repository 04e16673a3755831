"""All methods together: importing this module fills the registry."""

from banger.api import disk, images, system, usage, vm  # noqa: F401 (imported for their declarations)
from banger.api.method import METHODS

__all__ = ["METHODS"]
