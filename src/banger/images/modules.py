"""Which kernel modules a guest needs before its root is mounted, and in what order. Pure, except for reading.

Speaks the formats of depmod(8): modules.dep (`path: dependency …`, nearest first) and modules.builtin.
"""

import lzma
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import zstandard

from banger.base.problem import Code, Problem


class BootModules(NamedTuple):
    """Modules by name; the kernel may have any of them built in. Without a required one no guest boots;
    `late` and `optional` are loaded when the agent has answered (or before, when it is reached by vsock)."""

    required: tuple[str, ...]
    optional: tuple[str, ...]
    late: tuple[str, ...] = ()


# Required is only what init needs until the agent says that it is there; commands wait for the late ones as well.
# Each module costs some 10 ms of an emulated boot.
# virtio_rng is here because the first ssh key exchange waits for randomness; the rest is on the modules disk.
BOOT_MODULES = BootModules(
    required=("ext4", "virtio_mmio", "virtio_blk", "virtio_console"),
    late=("virtio_net",),
    optional=("virtio_rng", "vmw_vsock_virtio_transport"),
)


def module_name(path: str) -> str:
    """The name the kernel uses: `kernel/drivers/char/hw_random/virtio-rng.ko.xz` is `virtio_rng`."""
    return PurePosixPath(path).name.partition(".")[0].replace("-", "_")


def parse_dependencies(text: str) -> dict[str, tuple[str, ...]]:
    """modules.dep: each module's path and the paths it needs, nearest first as depmod writes them."""
    dependencies = {}
    for line in text.splitlines():
        path, _, needed = line.partition(":")
        if path.strip():
            dependencies[path.strip()] = tuple(needed.split())
    return dependencies


def parse_builtin(text: str) -> frozenset[str]:
    """modules.builtin: the names of the modules that are part of the kernel."""
    return frozenset(module_name(line) for line in text.split())


def plan_load_order(
    dependencies: Mapping[str, Sequence[str]], builtin: Iterable[str], wanted: BootModules
) -> tuple[str, ...]:
    """Paths of the wanted modules and all they need, each after its dependencies and once.

    Built-in modules are left out, unknown optional ones too; an unknown required one is a Problem.
    """
    paths = {module_name(path): path for path in dependencies}
    present = frozenset(builtin)
    order: dict[str, None] = {}
    for name in wanted.required + wanted.late + wanted.optional:
        if name in present:
            continue
        if name not in paths:
            if name not in wanted.optional:
                raise Problem(Code.OPERATION_FAILED, f"the kernel has no {name}, which guests need to boot")
            continue
        _append(paths[name], dependencies, order, ())
    return tuple(order)


def _append(
    path: str, dependencies: Mapping[str, Sequence[str]], order: dict[str, None], above: tuple[str, ...]
) -> None:
    if path in above:
        raise Problem(Code.OPERATION_FAILED, f"modules.dep has a circle at {path}")
    for needed in dependencies.get(path, ()):
        if needed not in order:
            _append(needed, dependencies, order, (*above, path))
    order[path] = None


def read_module(path: Path) -> bytes:
    """The module's ELF file; `.ko`, `.ko.xz`, `.ko.zst` and `.ko.gz`."""
    content = path.read_bytes()
    match path.suffix:
        case ".xz":
            return lzma.decompress(content)
        case ".zst":
            return zstandard.ZstdDecompressor().decompressobj().decompress(content)
        case ".gz":
            return zlib.decompress(content, wbits=31)
    return content
