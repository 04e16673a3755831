"""The keys of config.toml: their types, their defaults, and what they mean in numbers. Pure.

What types cannot say is in `config_checks`; how a file is read and refused is in `config`.
"""

from collections.abc import Callable
from typing import Annotated, Literal, NamedTuple

import msgspec

from banger.base.units import MIB, parse_duration, parse_size
from banger.model.agents import AgentKeys
from banger.model.image import DEFAULT_IMAGE
from banger.model.kernel import DEFAULT_KERNEL
from banger.model.network import DEFAULT_BRIDGE, DEFAULT_CIDR
from banger.model.policy import Limits
from banger.model.sizing import Asked

Size = str | int
Count = Annotated[int, msgspec.Meta(ge=1)]
Factor = Annotated[float, msgspec.Meta(gt=0, le=1000)]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]


class VmDefaults(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sizes for VMs whose command line names none. Text as for the flags: `memory = "2G"`."""

    vcpu: int | None = None
    memory: Size | None = None
    disk_size: Size | None = None
    system_overlay_size: Size | None = None


class LimitKeys(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What VMs may have: each one (`_per_vm`) and all together. None is no limit."""

    vms: Count | None = None
    running_vms: Count | None = None
    vcpus_per_vm: Count | None = None
    memory_per_vm: Size | None = None
    disk_per_vm: Size | None = None
    vcpus_total: Count | None = None
    memory_total: Size | None = None
    disk_total: Size | None = None
    memory_overcommit: Factor = 2.0
    disk_overcommit: Factor = 10.0
    disk_reserve: Size = "1G"


class FileSync(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file of the host that is copied into every guest at its start. `mode` is octal text."""

    host: str
    guest: str
    mode: str = "0600"

    @property
    def mode_bits(self) -> int:
        return int(self.mode, 8)


class Opencode(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`wait`: creating a VM waits until opencode listens on the guest's port."""

    wait: bool = False
    port: Port = 4096


class ToolingKeys(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`enabled`: running in a repository installs the tools it wants. `environment` is mise's in the guest while it
    installs: its mirrors and proxies."""

    enabled: bool = True
    timeout: str = "15m"
    environment: dict[str, str] = {}

    @property
    def timeout_s(self) -> float:
        return parse_duration(self.timeout)


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys of config.toml. Every one is optional."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    vmm: Literal["auto", "firecracker", "qemu"] = "auto"
    qemu_bin: str | None = None
    firecracker_bin: str | None = None
    jailer_bin: str | None = None
    jailer_enabled: bool = True
    storage_driver: Literal["auto", "dm-snapshot", "qcow2", "reflink", "copy"] = "auto"
    snapshot_limit: Size | None = None
    ssh_key_path: str | None = None
    default_image: str = DEFAULT_IMAGE
    default_kernel: str = DEFAULT_KERNEL
    stats_poll_interval: str = "10s"
    auto_stop_stale_after: str = ""
    git_identity: bool = True
    network: Literal["auto", "bridge", "user"] = "auto"
    bridge_name: str = DEFAULT_BRIDGE
    bridge_cidr: str = DEFAULT_CIDR
    tap_pool_size: Annotated[int, msgspec.Meta(ge=0, le=64)] = 4
    allow_networks: tuple[str, ...] = ()
    allow_host_ports: tuple[Port, ...] = ()
    allow_guests: bool = False
    vm_defaults: VmDefaults = VmDefaults()
    limits: LimitKeys = LimitKeys()
    file_sync: tuple[FileSync, ...] = ()
    opencode: Opencode = Opencode()
    tooling: ToolingKeys = ToolingKeys()
    agents: dict[str, AgentKeys] = {}

    @property
    def asked_sizes(self) -> Asked:
        values = {key: getattr(self.vm_defaults, key) for key in SIZES}
        return Asked(**{SIZES[key].field: SIZES[key].read(v) for key, v in values.items() if v is not None})

    @property
    def snapshot_limit_bytes(self) -> int | None:
        return _read_optional(self.snapshot_limit)

    @property
    def stats_poll_interval_s(self) -> float:
        return parse_duration(self.stats_poll_interval)

    @property
    def auto_stop_stale_after_s(self) -> float | None:
        """None is never."""
        return parse_duration(self.auto_stop_stale_after) if self.auto_stop_stale_after else None

    @property
    def allowed(self) -> Limits:
        keys = self.limits
        return Limits(
            vms=keys.vms,
            running_vms=keys.running_vms,
            vcpus_per_vm=keys.vcpus_per_vm,
            memory_per_vm_bytes=_read_optional(keys.memory_per_vm),
            disk_per_vm_bytes=_read_optional(keys.disk_per_vm),
            vcpus_total=keys.vcpus_total,
            memory_total_bytes=_read_optional(keys.memory_total),
            disk_total_bytes=_read_optional(keys.disk_total),
            memory_overcommit=keys.memory_overcommit,
            disk_overcommit=keys.disk_overcommit,
            disk_reserve_bytes=read_bytes(keys.disk_reserve),
        )


def read_bytes(value: Size) -> int:
    return parse_size(str(value))


def _read_optional(value: Size | None) -> int | None:
    return None if value is None else read_bytes(value)


class SizeKey(NamedTuple):
    """The field of Asked and VmSpec that a key is about, and how its value is read."""

    field: str
    read: Callable[[Size], int]


SIZES = {
    "vcpu": SizeKey("vcpus", int),
    "memory": SizeKey("memory_mib", lambda value: read_bytes(value) // MIB),
    "disk_size": SizeKey("disk_size_bytes", read_bytes),
    "system_overlay_size": SizeKey("system_overlay_size_bytes", read_bytes),
}
