"""Values of config.toml that their types do not hold to account. Pure.

Owns the check of each key and an example of a good value. A check raises Problem; who calls adds file and line.
"""

import posixpath
import re
from collections.abc import Callable
from functools import partial

import msgspec

from banger.base.problem import bad_request
from banger.base.units import GIB, parse_duration, render_size
from banger.model.agents import CHECKS as AGENT_CHECKS
from banger.model.agents import AgentKeys
from banger.model.config_keys import SIZES, Config, FileSync, read_bytes
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
from banger.model.policy import check_vm
from banger.model.vm import VmSpec, validate_spec

GUEST_HOME = "/root"
_MODE = re.compile(r"0?[0-7]{3}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
# What mise is told wherever banger runs it (services/tooling/guest.py).
MISE_SETTINGS = frozenset(
    {
        *("MISE_DATA_DIR", "MISE_CACHE_DIR", "MISE_STATE_DIR", "MISE_CONFIG_DIR", "MISE_GLOBAL_CONFIG_FILE"),
        *("MISE_YES", "MISE_USE_VERSIONS_HOST_TRACK", "NO_COLOR", "TERM", "PATH"),
    }
)
_LIMIT_SIZES = ("memory_per_vm", "disk_per_vm", "memory_total", "disk_total", "disk_reserve")

Path = tuple[str | int, ...]  # of keys, and of entries of a list, in the file


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


def _check_poll_interval(config: Config) -> None:
    if not 1 <= config.stats_poll_interval_s <= 3600:
        raise bad_request(
            f"{config.stats_poll_interval!r} is no interval for looking at VMs",
            hint="stats_poll_interval takes 1s to 1h, for example 10s",
        )


def _check_stale_after(config: Config) -> None:
    text = config.auto_stop_stale_after
    if text and parse_duration(text) < 30:
        raise bad_request(
            f"{text!r} is too short to call a VM idle",
            hint='auto_stop_stale_after takes 30s or more, for example 2h; "" is never',
        )


def _check_size(config: Config, key: str) -> None:
    """A VM of this size, and of the smallest otherwise, must be one that `validate_spec` lets pass, and the limits."""
    value = getattr(config.vm_defaults, key)
    if value is not None:
        size = SIZES[key]
        spec = msgspec.structs.replace(_SMALLEST, **{size.field: size.read(value)})
        check_vm(validate_spec(spec), config.allowed)


def _check_limit(config: Config, key: str) -> None:
    value = getattr(config.limits, key)
    if value is not None:
        read_bytes(value)


def _check_smallest(config: Config, key: str) -> None:
    """A limit that not even the smallest VM keeps would forbid all."""
    value = getattr(config.limits, key)
    least = _SMALLEST.memory_mib * GIB // 1024 if key == "memory_per_vm" else 2 * DISK_BYTES_MIN
    if value is not None and read_bytes(value) < least:
        raise bad_request(
            f"{render_size(read_bytes(value))} are less than the smallest VM has",
            hint=f"{key} takes {render_size(least)} or more; leave it out for no limit",
        )


def _check_tooling_timeout(config: Config) -> None:
    if not 1 <= config.tooling.timeout_s <= 86400:
        raise bad_request(
            f"{config.tooling.timeout!r} is no time to wait for tools",
            hint='timeout takes 1s to 24h, for example "15m"',
        )


def _check_tooling_environment(config: Config) -> None:
    for name, value in config.tooling.environment.items():
        if not _VARIABLE.fullmatch(name):
            raise bad_request(
                f"{name!r} is not the name of a variable", hint="for example MISE_NODE_MIRROR_URL"
            )
        if name in MISE_SETTINGS:
            raise bad_request(f"{name} is set by banger", hint="leave it out")
        if not value.isprintable():
            raise bad_request(f"the value of {name} is not one line of text", hint="write it in one line")


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
    "stats_poll_interval": _check_poll_interval,
    "auto_stop_stale_after": _check_stale_after,
    "tooling.timeout": _check_tooling_timeout,
    "tooling.environment": _check_tooling_environment,
    "bridge_name": lambda config: validate_bridge_name(config.bridge_name),
    "bridge_cidr": lambda config: parse_bridge_cidr(config.bridge_cidr),
    "allow_networks": lambda config: [parse_network(text) for text in config.allow_networks],
    **{f"limits.{key}": partial(_check_limit, key=key) for key in _LIMIT_SIZES},
    **{f"limits.{key}": partial(_check_smallest, key=key) for key in ("memory_per_vm", "disk_per_vm")},
    **{f"vm_defaults.{key}": partial(_check_size, key=key) for key in SIZES},
}


def list_checks(config: Config) -> list[tuple[Path, Callable[[Config], object]]]:
    """Each check with the key that it is about, in the order in which they are to be made."""
    checks: list[tuple[Path, Callable[[Config], object]]] = [
        (tuple(key.split(".")), check) for key, check in _CHECKS.items()
    ]
    for index in range(len(config.file_sync)):
        for key, check in (("host", _check_host), ("guest", _check_guest), ("mode", _check_mode)):
            checks.append((("file_sync", index, key), partial(_check_entry, index=index, check=check)))
    for name in config.agents:
        for key, check_agent in AGENT_CHECKS.items():
            checks.append((("agents", name, key), partial(_check_agent, name=name, check=check_agent)))
    return checks


def _check_agent(config: Config, name: str, check: Callable[[str, AgentKeys], None]) -> None:
    check(name, config.agents[name])


def _check_entry(config: Config, index: int, check: Callable[[tuple[FileSync, ...]], None]) -> None:
    """With the entries before it, which it must not repeat."""
    check(config.file_sync[: index + 1])


def _check_host(entries: tuple[FileSync, ...]) -> None:
    _check_place(entries[-1].host)


def _check_guest(entries: tuple[FileSync, ...]) -> None:
    guest = entries[-1].guest
    _check_place(guest)
    if find_guest_path(guest) in {find_guest_path(each.guest) for each in entries[:-1]}:
        raise bad_request(
            f"{guest!r} is written by an entry before it", hint="each file of the guest has one [[file_sync]]"
        )


def _check_mode(entries: tuple[FileSync, ...]) -> None:
    mode = entries[-1].mode
    if not _MODE.fullmatch(mode):
        raise bad_request(f"{mode!r} is no mode of a file", hint='mode takes "0600", "0644" or the like')


def _check_place(path: str) -> None:
    if not path.startswith(("/", "~/")):
        raise bad_request(f"{path!r} is neither absolute nor below ~/")
    if ".." in path.split("/"):
        raise bad_request(f"{path!r} leads upwards", hint="write the path without ..")
    if path.endswith("/") or not path.isprintable():
        raise bad_request(f"{path!r} does not name a file")


def find_guest_path(path: str) -> str:
    """Where in the guest: `~` is root's home there."""
    return posixpath.normpath("/" + (GUEST_HOME + path[1:] if path.startswith("~/") else path).lstrip("/"))


EXAMPLES = {
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
    "stats_poll_interval": '"10s"',
    "auto_stop_stale_after": '"2h"',
    "git_identity": "false",
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
    "vms": "50",
    "running_vms": "10",
    "vcpus_per_vm": "8",
    "memory_per_vm": '"8G"',
    "disk_per_vm": '"40G"',
    "vcpus_total": "32",
    "memory_total": '"24G"',
    "disk_total": '"500G"',
    "memory_overcommit": "2.0",
    "disk_overcommit": "10.0",
    "disk_reserve": '"1G"',
    "host": '"~/.gitconfig"',
    "guest": '"~/.gitconfig"',
    "mode": '"0600"',
    "command": '["claude"]',
    "serve": '["opencode", "serve", "--port", "{port}"]',
    "program": '"opencode"',
    "install": '["npm", "install", "--global", "@anthropic-ai/claude-code"]',
    "env": '["ANTHROPIC_API_KEY"]',
    "env_file": '"~/.config/banger/agent.env"',
    "enabled": "false",
    "timeout": '"15m"',
    "environment": '{ MISE_NODE_MIRROR_URL = "https://mirror.example.org/node/" }',
    "wait": "true",
    "port": "4096",
}
