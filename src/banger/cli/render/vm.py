"""One VM for people: `vm show`."""

from __future__ import annotations

from banger.cli.render.tables import render_age, render_duration, render_fields, render_size

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
            ("runs on", f"{posture['backend']}, {posture['accelerator']} ({posture['accelerator_reason']})"),
            ("network", _render_network(spec, posture)),
            (
                "storage",
                f"{posture['storage_driver']}; its own: root {render_size(use['root_bytes'])}, "
                f"work {render_size(use['work_bytes'])}",
            ),
            ("memory", posture["memory_backing"]),
            ("ssh", _render_ssh(details.get("ssh"), vm["name"])),
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


def _render_state(vm: dict[str, Any]) -> str:
    error = vm.get("error")
    return f"{vm['state']}: {error.get('message', '')}" if error else str(vm["state"])


def _render_network(spec: dict[str, Any], posture: dict[str, Any]) -> str:
    return (
        f"{posture['network_mode']} ({posture['network_reason']}), NAT {'on' if spec.get('nat') else 'off'}"
    )


def _render_ssh(target: dict[str, Any] | None, name: str) -> str:
    return f"banger vm ssh {name} ({target['user']}@{target['host']} port {target['port']})" if target else ""


def _render_stages(stages: list[dict[str, Any]] | None) -> str:
    return ", ".join(
        f"{stage['name']} {render_duration(stage['duration_ms'] / 1000)}" for stage in stages or ()
    )
