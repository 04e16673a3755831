"""One VM for people: `vm show`."""

from __future__ import annotations

from banger.cli.render.tables import (
    render_age,
    render_duration,
    render_fields,
    render_size,
    render_table,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MIB = 1024 * 1024


def render_details(details: dict[str, Any]) -> str:
    """Fields of VmDetails (docs/reference/methods.md), the ones a person asks for first on top."""
    vm, posture, use = details["vm"], details["posture"], details["disk_use"]
    spec = vm["spec"]
    return render_fields(
        [
            ("name", vm["name"]),
            ("id", vm["id"]),
            ("state", _render_state(vm)),
            ("image", spec["image"]),
            ("kernel", spec["kernel"]),
            ("spec", render_spec(spec)),
            ("runs on", _render_posture(posture)),
            ("jail", posture.get("jail")),
            ("network", _render_network(spec, posture)),
            ("published", ", ".join(render_port(port) for port in spec.get("publish") or ())),
            ("storage", _render_storage(posture["storage_driver"], use)),
            ("memory", posture["memory_backing"]),
            ("ssh", _render_ssh(details.get("ssh"), vm["name"])),
            ("time to live", _render_ttl(vm.get("ttl"), details.get("ttl_left_s"))),
            ("warnings", "\n".join(vm.get("warnings") or ())),
            ("labels", ", ".join(f"{key}={value}" for key, value in (vm.get("labels") or {}).items())),
            ("boot", _render_stages(vm.get("boot_stages"))),
            ("guest", _render_stages(vm.get("guest_stages"))),
            ("created", f"{vm['created_at']} ({render_age(vm['created_at'])} ago)"),
            ("directory", details["directory"]),
        ]
    )


def render_spec(spec: dict[str, Any]) -> str:
    """Each size with where it came from: flag, config, host or floor."""
    origins = spec.get("origins") or {}
    vcpus = spec["vcpus"]
    sizes = (
        ("vcpus", f"{vcpus} vCPU" + ("s" if vcpus != 1 else "")),
        ("memory_mib", render_size(spec["memory_mib"] * _MIB) + " memory"),
        ("disk_size_bytes", render_size(spec["disk_size_bytes"]) + " work disk"),
        ("system_overlay_size_bytes", render_size(spec["system_overlay_size_bytes"]) + " root disk"),
    )
    return ", ".join(f"{text} ({origins[name]})" if name in origins else text for name, text in sizes)


def render_verdicts(verdicts: list[dict[str, Any]]) -> str:
    """What `vm prune --dry-run` has to say about each VM: those that would go first."""
    ordered = sorted(verdicts, key=lambda verdict: not verdict["goes"])
    rows = [
        (
            verdict["name"],
            "goes" if verdict["goes"] else "stays",
            render_size(verdict["frees_bytes"]) if verdict["goes"] else "-",
            verdict["why"],
        )
        for verdict in ordered
    ]
    return render_table(("NAME", "VERDICT", "FREES", "WHY"), rows)


def render_port(port: dict[str, Any]) -> str:
    """As `--publish` takes it, the address always named."""
    suffix = "/udp" if port.get("protocol") == "udp" else ""
    return f"{port['host_address']}:{port['host_port']}:{port['guest_port']}{suffix}"


def _render_state(vm: dict[str, Any]) -> str:
    error = vm.get("error")
    why = error.get("message", "") if error else vm.get("stopped_because")
    return f"{vm['state']}: {why}" if why else str(vm["state"])


def _render_ttl(ttl: dict[str, Any] | None, left_s: float | None) -> str:
    """What is left of it while it counts."""
    if ttl is None:
        return ""
    whole = render_duration(ttl["seconds"])
    return whole if left_s is None else f"{whole}, {render_duration(max(0.0, left_s))} left"


def _render_network(spec: dict[str, Any], posture: dict[str, Any]) -> str:
    mode = _explain(posture["network_mode"], posture["network_reason"])
    return ", ".join(filter(None, (mode, f"NAT {'on' if spec.get('nat') else 'off'}")))


def _render_posture(posture: dict[str, Any]) -> str:
    """What the daemon does not know (yet) is left out, and so is a reason that the one before it contains."""
    why_backend, why_accelerator = posture.get("backend_reason") or "", posture["accelerator_reason"]
    if why_accelerator in why_backend:
        why_accelerator = ""
    parts = (_explain(posture["backend"], why_backend), _explain(posture["accelerator"], why_accelerator))
    return ", ".join(filter(None, parts))


def _explain(text: str, reason: str) -> str:
    return f"{text} ({reason})" if text and reason else text or reason


def _render_storage(driver: str, use: dict[str, Any]) -> str:
    own = f"its own: root {render_size(use['root_bytes'])}, work {render_size(use['work_bytes'])}"
    return "; ".join(filter(None, (driver, own)))


def _render_ssh(target: dict[str, Any] | None, name: str) -> str:
    return f"banger vm ssh {name} ({target['user']}@{target['host']} port {target['port']})" if target else ""


def _render_stages(stages: list[dict[str, Any]] | None) -> str:
    return ", ".join(
        f"{stage['name']} {render_duration(stage['duration_ms'] / 1000)}" for stage in stages or ()
    )
