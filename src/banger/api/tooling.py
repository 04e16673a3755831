"""Methods on the tools that a repository wants: what they are, and getting them into a VM."""

from typing import Annotated

import msgspec

from banger.api.method import Effect, Kind, Request, VmReference, declare, field
from banger.model.tooling.found import Tool
from banger.model.tooling.plan import ToolWarning

TimeoutSeconds = Annotated[float, msgspec.Meta(ge=1, le=86400)]


class PlannedTools(msgspec.Struct, frozen=True, kw_only=True):
    """What would be installed for a repository. `enabled` is whether `vm run` does so by itself ([tooling] in
    config.toml)."""

    root: str
    subdirectory: str
    enabled: bool
    tools: tuple[Tool, ...] = ()
    warnings: tuple[ToolWarning, ...] = ()


class InstalledTool(msgspec.Struct, frozen=True, kw_only=True):
    """`version` is the release that `asked` came to."""

    name: str
    asked: str
    version: str
    file: str


class InstalledTools(msgspec.Struct, frozen=True, kw_only=True):
    """The tools of a VM's workspace as they are now in its guest. `changed` is False when all were there already; `log`
    is the file on the host with what mise said last, empty where it never ran."""

    vm: str
    changed: bool
    log: str
    tools: tuple[InstalledTool, ...] = ()
    warnings: tuple[ToolWarning, ...] = ()


@declare("tooling.plan")
class ToolingPlan(Request[PlannedTools]):
    """Which tools a repository wants, and which of its files says so."""

    path: Annotated[
        str, field("a directory of the repository; default here", positional=True, metavar="PATH")
    ] = ""


@declare("tooling.install", effect=Effect.CHANGE, kind=Kind.OPERATION)
class ToolingInstall(Request[InstalledTools]):
    """Installs the tools that a VM's workspace wants, by mise in the guest. Once more fetches nothing."""

    vm: VmReference
    timeout_s: Annotated[
        TimeoutSeconds | None,
        field("give up after so long; default [tooling] timeout", flag="bootstrap-timeout", unit="seconds"),
    ] = None
