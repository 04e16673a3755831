"""The configuration file's meaning: every key, its default and its check. Pure; reading is the daemon's.

Unknown keys and bad values are refused with file, line and key; what a VM may not have, its defaults may not.
"""

import re
import tomllib
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple

import msgspec

from banger.base.problem import Problem, bad_request
from banger.base.units import MIB, parse_size, render_size
from banger.model.image import DEFAULT_IMAGE
from banger.model.kernel import DEFAULT_KERNEL
from banger.model.machine import DISK_BYTES_MIN, MEMORY_MIB_MIN, OVERLAY_BYTES_MAX
from banger.model.names import validate_material_name
from banger.model.network import (
    DEFAULT_BRIDGE,
    DEFAULT_CIDR,
    parse_bridge_cidr,
    parse_network,
    validate_bridge_name,
)
from banger.model.sizing import Asked
from banger.model.vm import VmSpec, validate_spec


class VmDefaults(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sizes for VMs whose command line names none. Text as for the flags: `memory = "2G"`."""

    vcpu: int | None = None
    memory: str | int | None = None
    disk_size: str | int | None = None
    system_overlay_size: str | int | None = None


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys of config.toml. Every one is optional."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    vmm: Literal["auto", "firecracker", "qemu"] = "auto"
    qemu_bin: str | None = None
    firecracker_bin: str | None = None
    jailer_bin: str | None = None
    jailer_enabled: bool = True
    storage_driver: Literal["auto", "dm-snapshot", "qcow2", "reflink", "copy"] = "auto"
    snapshot_limit: str | int | None = None
    ssh_key_path: str | None = None
    default_image: str = DEFAULT_IMAGE
    default_kernel: str = DEFAULT_KERNEL
    network: Literal["auto", "bridge", "user"] = "auto"
    bridge_name: str = DEFAULT_BRIDGE
    bridge_cidr: str = DEFAULT_CIDR
    tap_pool_size: Annotated[int, msgspec.Meta(ge=0, le=64)] = 4
    allow_networks: tuple[str, ...] = ()
    allow_host_ports: tuple[Annotated[int, msgspec.Meta(ge=1, le=65535)], ...] = ()
    allow_guests: bool = False
    vm_defaults: VmDefaults = VmDefaults()

    @property
    def asked_sizes(self) -> Asked:
        values = {key: getattr(self.vm_defaults, key) for key in _SIZES}
        return Asked(**{_SIZES[key].field: _SIZES[key].read(v) for key, v in values.items() if v is not None})

    @property
    def snapshot_limit_bytes(self) -> int | None:
        return None if self.snapshot_limit is None else _read_bytes(self.snapshot_limit)


def _read_bytes(value: str | int) -> int:
    return parse_size(str(value))


class _Size(NamedTuple):
    """The field of Asked and VmSpec that a key is about, and how its value is read."""

    field: str
    read: Callable[[str | int], int]


_SIZES = {
    "vcpu": _Size("vcpus", int),
    "memory": _Size("memory_mib", lambda value: _read_bytes(value) // MIB),
    "disk_size": _Size("disk_size_bytes", _read_bytes),
    "system_overlay_size": _Size("system_overlay_size_bytes", _read_bytes),
}


def parse_config(text: str, *, file: str) -> Config:
    """Raises `bad_request` that names file, line and key."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise bad_request(f"{file}: {error}", hint=f"correct {file}") from error
    try:
        config = msgspec.convert(data, Config)
    except msgspec.ValidationError as error:
        found = _explain(str(error))
        raise _refused(file, text, *found) from error
    for key, check in _CHECKS.items():
        try:
            check(config)
        except Problem as problem:
            raise _refused(file, text, key, problem.brief, problem.hint or _example(key)) from problem
    return config


# ---- values that their types do not hold to account


def _check_program(config: Config, key: str) -> None:
    path = getattr(config, key)
    if path is not None and not path.startswith("/"):
        raise bad_request(f"{path!r} is not an absolute path")


def _check_snapshot_limit(config: Config) -> None:
    limit = config.snapshot_limit_bytes
    if limit is not None and not DISK_BYTES_MIN <= limit <= OVERLAY_BYTES_MAX:
        raise bad_request(
            f"{render_size(limit)} are no limit for a root disk's changes",
            hint=f"snapshot_limit takes 64M to {OVERLAY_BYTES_MAX >> 40}T, for example 4G",
        )


def _check_ssh_key_path(config: Config) -> None:
    if config.ssh_key_path is not None and not config.ssh_key_path.startswith(("/", "~/")):
        raise bad_request(f"{config.ssh_key_path!r} is neither absolute nor below ~/")


def _check_size(config: Config, key: str) -> None:
    """A VM of this size, and of the smallest otherwise, must be one that `validate_spec` lets pass."""
    value = getattr(config.vm_defaults, key)
    if value is not None:
        size = _SIZES[key]
        validate_spec(msgspec.structs.replace(_SMALLEST, **{size.field: size.read(value)}))


_SMALLEST = VmSpec(
    image="",
    kernel="",
    vcpus=1,
    memory_mib=MEMORY_MIB_MIN,
    disk_size_bytes=DISK_BYTES_MIN,
    system_overlay_size_bytes=DISK_BYTES_MIN,
)
_CHECKS: dict[str, Callable[[Config], object]] = {
    **{key: partial(_check_program, key=key) for key in ("qemu_bin", "firecracker_bin", "jailer_bin")},
    "snapshot_limit": _check_snapshot_limit,
    "ssh_key_path": _check_ssh_key_path,
    "default_image": lambda config: validate_material_name("image", config.default_image),
    "default_kernel": lambda config: validate_material_name("kernel", config.default_kernel),
    "bridge_name": lambda config: validate_bridge_name(config.bridge_name),
    "bridge_cidr": lambda config: parse_bridge_cidr(config.bridge_cidr),
    "allow_networks": lambda config: [parse_network(text) for text in config.allow_networks],
    **{key: partial(_check_size, key=key) for key in _SIZES},
}
_EXAMPLES = {
    "log_level": '"info", "debug", "warning" or "error"',
    "vmm": '"auto", "firecracker" or "qemu"',
    "qemu_bin": '"/usr/bin/qemu-system-x86_64"',
    "firecracker_bin": '"/opt/firecracker/firecracker"',
    "jailer_bin": '"/opt/firecracker/jailer"',
    "jailer_enabled": "true",
    "storage_driver": '"auto", "dm-snapshot", "qcow2", "reflink" or "copy"',
    "snapshot_limit": '"4G"',
    "ssh_key_path": '"~/.ssh/banger"',
    "default_image": f'"{DEFAULT_IMAGE}"',
    "default_kernel": f'"{DEFAULT_KERNEL}"',
    "network": '"auto", "bridge" or "user"',
    "bridge_name": f'"{DEFAULT_BRIDGE}"',
    "bridge_cidr": f'"{DEFAULT_CIDR}"',
    "tap_pool_size": "4",
    "allow_networks": '["192.168.1.0/24"]',
    "allow_host_ports": "[5432]",
    "allow_guests": "true",
    "vcpu": "2",
    "memory": '"2G"',
    "disk_size": '"20G"',
    "system_overlay_size": '"10G"',
}


# ---- what is wrong, and where


class _Refusal(NamedTuple):
    key: str
    reason: str
    hint: str


def _explain(message: str) -> _Refusal:
    """Out of msgspec's message, which ends in the path: `… - at `$.vm_defaults.vcpu``."""
    reason, _, path = message.partition(" - at ")
    place = path.strip("`")
    if unknown := re.search(r"unknown field `([^`]+)`", reason):
        section: Any = VmDefaults if place.endswith(".vm_defaults") else Config
        table = "[vm_defaults] has" if section is VmDefaults else "there are"
        keys = ", ".join(section.__struct_fields__)
        return _Refusal(unknown.group(1), "is no key that banger knows", f"{table} {keys}")
    key = place.rpartition(".")[2].partition("[")[0]  # an entry of a list is its key's matter
    return _Refusal(key, reason[:1].lower() + reason[1:], _example(key))


def _example(key: str) -> str:
    return f"for example {key} = {_EXAMPLES[key]}" if key in _EXAMPLES else f"it is a table: [{key}]"


def _refused(file: str, text: str, key: str, reason: str, hint: str) -> Problem:
    """`key` is looked for where TOML may have it: before `=`, in a header, in an inline table, dotted."""
    pattern = re.compile(rf"(?:^|[\s\[{{,.\"']){re.escape(key)}[\"']?\s*[=\].]")
    comment = re.compile(r"(?:^|\s)#")
    lines = enumerate(text.splitlines(), 1)
    line = next((number for number, line in lines if pattern.search(comment.split(line)[0])), 1)
    return bad_request(f"{file}:{line}: {key}: {reason}", hint=hint)
