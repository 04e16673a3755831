"""Packages of the distribution, fetched by the system's own apt with the system's own configuration.

Names no mirror, needs no root, installs nothing on the host. apt verifies what it downloads.
"""

import re
from pathlib import Path
from typing import NamedTuple

from banger.base.problem import Code, Problem, unavailable
from banger.base.process import get_tool
from banger.images.tools import run_tool

_LOOKUP_TIMEOUT_S = 60.0
_DOWNLOAD_TIMEOUT_S = 1800.0
_UNPACK_TIMEOUT_S = 600.0
_META_DEPTH = 4


class Package(NamedTuple):
    """The version of a package that apt would install."""

    name: str
    version: str
    size_bytes: int
    depends: tuple[str, ...]


def parse_package(text: str) -> Package:
    """The first stanza of `apt-cache show`. Alternatives (`a | b`) and version limits are left out."""
    fields: dict[str, str] = {}
    for line in text.split("\n\n", 1)[0].splitlines():
        if not line.startswith((" ", "\t")):
            key, _, value = line.partition(":")
            fields[key] = value.strip()
    depends = re.split(r"\s*,\s*", fields.get("Depends", ""))
    try:
        return Package(
            name=fields["Package"],
            version=fields["Version"],
            size_bytes=int(fields.get("Size", "0")),
            depends=tuple(name for entry in depends if (name := entry.split(" ")[0].split(":")[0])),
        )
    except (KeyError, ValueError) as error:
        raise Problem(Code.OPERATION_FAILED, "apt-cache answers in a form not known here") from error


async def get_package(name: str) -> Package:
    """What apt knows of a package. Raises `unavailable` when it knows nothing."""
    argv = (get_tool("apt-cache", package="apt"), "show", "--no-all-versions", "--", name)
    shown = (await run_tool(argv, timeout_s=_LOOKUP_TIMEOUT_S, check=False)).decode("utf-8", "replace")
    if not shown.strip():
        raise unavailable(f"apt knows no package {name}", hint="sudo apt-get update")
    return parse_package(shown)


async def resolve_meta_package(name: str, *, prefix: str) -> Package:
    """The package that a meta package stands for: follows dependencies that begin with `prefix`."""
    package = await get_package(name)
    for _ in range(_META_DEPTH):
        followed = [entry for entry in package.depends if entry.startswith(prefix)]
        if not followed:
            return package
        package = await get_package(followed[0])
    raise Problem(Code.OPERATION_FAILED, f"{name} leads from package to package without end")


async def download_package(package: Package, directory: Path) -> Path:
    """The package's file in `directory`."""
    argv = (
        get_tool("apt-get", package="apt"),
        "--quiet=2",
        # As root, apt's sandbox user could not write into our private directory and would say so.
        "-o",
        "APT::Sandbox::User=root",
        "download",
        f"{package.name}={package.version}",
    )
    try:
        await run_tool(argv, timeout_s=_DOWNLOAD_TIMEOUT_S, cwd=directory)
    except Problem as problem:
        if problem.code is Code.OPERATION_FAILED:
            problem.hint = "sudo apt-get update"
        raise
    found = sorted(directory.glob("*.deb"))
    if len(found) != 1:
        raise Problem(
            Code.OPERATION_FAILED, f"apt-get downloads {len(found)} files for {package.name}, not one"
        )
    return found[0]


async def unpack_package(package: Path, directory: Path) -> None:
    """The package's files below `directory`; its scripts are not run."""
    argv = (get_tool("dpkg-deb", package="dpkg"), "--extract", str(package), str(directory))
    await run_tool(argv, timeout_s=_UNPACK_TIMEOUT_S)
