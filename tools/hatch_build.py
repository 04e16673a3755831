"""Builds the guest program into the package when a wheel or an editable install is made."""

import importlib.util
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class GuestProgramHook(BuildHookInterface):  # type: ignore[misc,type-arg,unused-ignore]
    """Runs guest-agent/build.py, which skips what is up to date."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name == "sdist":
            return
        root = Path(self.root)
        spec = importlib.util.spec_from_file_location("guest_build", root / "guest-agent" / "build.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        module.build(root / "src" / "banger" / "guest" / "bin")
