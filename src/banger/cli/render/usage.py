"""What VMs use and serve and how they are, for people: `vm stats`, `top`, `vm ports`, `vm health`."""

from __future__ import annotations

from banger.cli.render.tables import render_duration, render_fields, render_size, render_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MIB = 1024 * 1024
_UNKNOWN = "-"
_USAGE = ("NAME", "CPU %", "MEMORY / LIMIT", "DISK", "NET IN / OUT", "BLOCK IN / OUT", "CPU TIME")
_PORTS = ("PORT", "ADDRESS", "PROCESS", "REACHED AT")


def render_usages(vms: list[dict[str, Any]], *, columns: int | None = None) -> str:
    """Fields of VmUsage (docs/reference/methods.md); what is not known is a dash, never 0. Of a terminal's width: the
    last fields are left out rather than cut."""
    rows = [_USAGE, *(_usage(vm) for vm in vms)]
    count = len(_USAGE)
    while True:
        text = render_table(rows[0][:count], [row[:count] for row in rows[1:]])
        if columns is None or count == 1 or max(map(len, text.splitlines())) <= columns:
            return text
        count -= 1


def sort_by_cpu(vms: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The busiest first; those of which nothing is known last, by name."""
    return sorted(vms, key=lambda vm: (-(vm.get("cpu_percent") or 0), vm.get("cpu_s") is None, vm["name"]))


def render_ports(ports: list[dict[str, Any]]) -> str:
    return render_table(_PORTS, [_port(port) for port in ports])


def list_port_hints(ports: list[dict[str, Any]]) -> list[str]:
    """Commands that would make more of them reachable, once each."""
    hints = (port.get("hint") or "" for port in ports)
    return list(dict.fromkeys(hint for hint in hints if hint.startswith("banger ")))


def render_health(health: dict[str, Any]) -> str:
    state = "healthy" if health["healthy"] else "unhealthy"
    return render_fields(
        [
            ("vm", health["vm"]),
            ("state", state),
            ("problem", "\n".join(health.get("problems") or ())),
            ("warning", "\n".join(health.get("warnings") or ())),
            ("agent", _optional(health.get("agent_ms"), lambda ms: f"answers in {ms:g} ms")),
            ("uptime", _optional(health.get("uptime_s"), render_duration)),
            ("load", _optional(health.get("load1"), lambda load: f"{load:.2f}")),
            ("memory", _guest_memory(health)),
            ("disks", "\n".join(_file_system(each) for each in health.get("file_systems") or ())),
            ("init", health.get("init_mode") or ""),
            ("clock", _optional(health.get("clock_offset_s"), _clock)),
            ("ssh", _optional(health.get("ssh"), lambda on: "listens" if on else "does not listen")),
        ]
    )


def _usage(vm: dict[str, Any]) -> tuple[str, ...]:
    cpu = vm.get("cpu_percent")
    return (
        vm["name"],
        _UNKNOWN if cpu is None else f"{cpu:.1f}",
        f"{_size(vm.get('memory_bytes'))} / {render_size(vm['memory_mib'] * _MIB)}",
        _size(vm.get("disk_bytes")),
        _pair(vm.get("received_bytes"), vm.get("sent_bytes")),
        _pair(vm.get("block_read_bytes"), vm.get("block_written_bytes")),
        _optional(vm.get("cpu_s"), render_duration) or _UNKNOWN,
    )


def _pair(one: int | None, other: int | None) -> str:
    return _UNKNOWN if one is None and other is None else f"{_size(one)} / {_size(other)}"


def _size(size_bytes: int | None) -> str:
    return _UNKNOWN if size_bytes is None else render_size(size_bytes)


def _optional(value: Any, render: Any) -> str:
    return "" if value is None else str(render(value))


def _port(port: dict[str, Any]) -> tuple[str, ...]:
    process = port.get("process") or _UNKNOWN
    if port.get("pid"):
        process = f"{process} ({port['pid']})"
    return (f"{port['port']}/{port['protocol']}", port["address"], process, _reached(port))


def _reached(port: dict[str, Any]) -> str:
    """URLs where something answers to a browser, places otherwise, or why there are none."""
    if not port.get("reach"):
        return f"not reachable: {port.get('unreachable') or 'unknown'}"
    if port.get("urls"):
        return ", ".join(port["urls"])
    places = ", ".join(port["reach"])
    return f"{places} ({port['service']})" if port.get("service") else places


def _guest_memory(health: dict[str, Any]) -> str:
    total, available = health.get("memory_total_bytes"), health.get("memory_available_bytes")
    if total is None or available is None:
        return ""
    return f"{render_size(available)} of {render_size(total)} available"


def _file_system(system: dict[str, Any]) -> str:
    size, used = system["size_bytes"], system["used_bytes"]
    share = f", {100 * used / size:.0f} %" if size else ""
    return f"{system['path']} {render_size(used)} of {render_size(size)} used{share}"


def _clock(offset_s: float) -> str:
    if abs(offset_s) < 0.1:
        return "that of the host"
    return f"{abs(offset_s):.1f} s {'ahead of' if offset_s > 0 else 'behind'} the host's"
