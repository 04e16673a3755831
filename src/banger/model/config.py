"""The configuration file's meaning: every key, its default and its check. Pure; reading is the daemon's.

Unknown keys and bad values are refused with file, key and line.
"""

import re
import tomllib
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from banger.base.problem import Problem, bad_request
from banger.base.units import MIB, parse_size
from banger.model.image import DEFAULT_IMAGE
from banger.model.kernel import DEFAULT_KERNEL
from banger.model.sizing import Asked

Choice = Annotated[str, Meta(pattern="^(auto|firecracker|qemu)$")]
Level = Annotated[str, Meta(pattern="^(debug|info|warning|error)$")]


class VmDefaults(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sizes for VMs whose command line names none. Text as for the flags: `memory = "2G"`."""

    vcpu: int | None = None
    memory: str | int | None = None
    disk_size: str | int | None = None
    system_overlay_size: str | int | None = None


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys of config.toml. Every one is optional."""

    log_level: Level = "info"
    vmm: Choice = "auto"
    qemu_bin: str | None = None
    ssh_key_path: str | None = None
    default_image: str = DEFAULT_IMAGE
    default_kernel: str = DEFAULT_KERNEL
    vm_defaults: VmDefaults = VmDefaults()

    @property
    def asked_sizes(self) -> Asked:
        defaults = self.vm_defaults
        memory = _size(defaults.memory)
        return Asked(
            vcpus=defaults.vcpu,
            memory_mib=None if memory is None else memory // MIB,
            disk_size_bytes=_size(defaults.disk_size),
            system_overlay_size_bytes=_size(defaults.system_overlay_size),
        )


def _size(value: str | int | None) -> int | None:
    return None if value is None else parse_size(str(value))


def parse_config(text: str, *, file: str) -> Config:
    """Raises `bad_request` that names file, line and key."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise bad_request(f"{file}: {error}", hint=f"correct {file}") from error
    try:
        config = msgspec.convert(data, Config)
    except msgspec.ValidationError as error:
        key, reason = _explain(str(error), data)
        raise _refused(file, text, key, reason) from error
    for key in ("memory", "disk_size", "system_overlay_size"):
        try:
            _size(getattr(config.vm_defaults, key))
        except Problem as problem:
            raise _refused(file, text, key, problem.brief) from problem
    return config


def _explain(message: str, data: dict[str, Any]) -> tuple[str, str]:
    """The key and the reason out of msgspec's message, which ends in the path: `… - at `$.vm_defaults.vcpu``."""
    unknown = re.search(r"unknown field `([^`]+)`", message)
    if unknown:
        return unknown.group(1), "is no key that banger knows"
    reason, _, path = message.partition(" - at ")
    return path.strip("`").rpartition(".")[2], reason[:1].lower() + reason[1:]


def _refused(file: str, text: str, key: str, reason: str) -> Problem:
    line = next(
        (
            number
            for number, line in enumerate(text.splitlines(), 1)
            if re.match(rf"\s*\[?{re.escape(key)}\b", line)
        ),
        1,
    )
    return bad_request(f"{file}:{line}: {key}: {reason}", hint="see docs/reference/config.md for the keys")
