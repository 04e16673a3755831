"""`df` for people: one line for each image, kernel and VM, and the sums."""

from __future__ import annotations

from banger.cli.render.tables import render_fields, render_size, render_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_HEADERS = ("KIND", "NAME", "USE", "SHARED", "OWN", "MAY GROW", "RECLAIMABLE")


def render_usage(usage: dict[str, Any]) -> str:
    rows = [_stored_row("image", each) for each in usage["images"]]
    rows += [_stored_row("kernel", each) for each in usage["kernels"]]
    rows += [
        (
            "vm",
            vm["name"],
            vm["state"],
            _size(vm["shared_bytes"]),
            _size(vm["exclusive_bytes"]),
            _size(vm["growth_bytes"]),
            _size(vm["reclaimable_bytes"]),
        )
        for vm in usage["vms"]
    ]
    return render_table(_HEADERS, rows) + "\n" + _render_totals(usage["totals"])


def _stored_row(kind: str, build: dict[str, Any]) -> tuple[str, ...]:
    name = build["name"] if build["is_current"] else f"{build['name']}@{build['id']}"
    count = len(build["used_by"])
    use = f"{count} VM" + ("s" if count != 1 else "")
    sizes = (build["shared_bytes"], build["exclusive_bytes"], 0, build["reclaimable_bytes"])
    return (kind, name, use, *map(_size, sizes))


def _size(size_bytes: int) -> str:
    return render_size(size_bytes) if size_bytes else "-"


def _render_totals(totals: dict[str, Any]) -> str:
    parts = ", ".join(
        f"{word} {render_size(totals[key])}"
        for word, key in (
            ("images", "images_bytes"),
            ("kernels", "kernels_bytes"),
            ("VMs", "vms_bytes"),
            ("unfinished builds", "unfinished_bytes"),
            ("records and log", "other_bytes"),
        )
        if totals[key]
    )
    total = render_size(totals["total_bytes"]) + (f" ({parts})" if parts else "")
    growth = totals["growth_bytes"]
    return render_fields(
        [
            ("total", total),
            ("reclaimable", render_size(totals["reclaimable_bytes"])),
            ("free", render_size(totals["free_bytes"])),
            ("VMs may grow by", render_size(growth) if growth else ""),
        ]
    )
