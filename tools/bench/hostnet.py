"""H1 to H3: the host side of a VM's network, against what a tutorial's script runs for it.

The script is `ip` three times (tap, bridge, up) and `nft -f` of a file with the same two elements for the same tables:
as few processes as it can be, started by posix_spawn, the file written beforehand. The candidate is the client, the
root helper in a process of its own, and the tap pool. `hostnet_inside` measures, in namespaces that end with it.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from tools.bench.measure import Result, compare, compare_speed

from banger.base.process import find_tool

ROOT = Path(__file__).parents[2]
IDS = frozenset({"H1", "H2", "H3"})
_DEADLINE_S = 300
# One after another, fifty take fifty times as long as one alone, and there is one helper and one lock in the kernel
# (rtnl) to wait for. More than this is a convoy, or work that grows with the number of guests.
CONVOY_LIMIT = 60.0
_NAMESPACES = (
    *("--net", "--mount", "--propagation=private"),
    *("--pid", "--fork", "--kill-child", "--mount-proc"),
)
Samples = dict[str, list[float]]


def find_obstacle() -> str:
    """Why this cannot be measured here; empty when it can."""
    if os.getuid() != 0:
        return "it needs root, for network namespaces: sudo make bench"
    for tool, package in (("nft", "nftables"), ("ip", "iproute2"), ("unshare", "util-linux")):
        if find_tool(tool) is None:
            return f"{tool} is not installed: apt-get install {package}"
    if not Path("/dev/net/tun").exists():
        return "this host has no TUN device: modprobe tun"
    probe = subprocess.run(
        ["unshare", *_NAMESPACES, "nft", "list", "ruleset"], capture_output=True, text=True, check=False
    )
    return f"no network namespace with nftables: {probe.stderr.strip()}" if probe.returncode else ""


def run(wanted: set[str]) -> list[Result]:
    """Those of IDS that are wanted, measured in one run. It fails when a call or a process is too many."""
    program = (sys.executable, "-m", "tools.bench.hostnet_inside", *sorted(wanted & IDS))
    argv = ["unshare", *_NAMESPACES, *program]
    done = subprocess.run(argv, cwd=ROOT, stdout=subprocess.PIPE, timeout=_DEADLINE_S, check=True)
    measured: dict[str, Samples] = json.loads(done.stdout)
    results: list[Result] = []
    for present, samples in measured.items():
        results += compare_concurrent(samples) if present == "concurrent" else compare_one(present, samples)
    return [result for result in results if result.id[:2] in wanted]


def compare_one(present: str, samples: Samples) -> list[Result]:
    """One VM more on a bridge that has `present` of them."""
    script = _add(samples["ip"], samples["nft"])
    pooled = _add(samples["lease"], samples["admit"])

    def speed(id_: str, what: str, ours: list[float], theirs: list[float], at_least: float) -> Result:
        what = f"{what}, {present} present"
        return compare_speed(f"{id_}-{present}", what, ours, theirs, unit="ms", at_least=at_least)

    return [
        speed("H1-create", "new tap, on the bridge / ip ×3", samples["create"], samples["ip"], 3),
        speed("H1-pool", "pooled tap, admitted with NAT / ip ×3 + nft -f", pooled, script, 5),
        speed("H2", "NAT add (AdmitGuest) / nft -f", samples["admit"], samples["nft"], 2),
    ]


def compare_concurrent(samples: Samples) -> list[Result]:
    """The 95th percentile of fifty at once, against that of fifty scripts at once and against one alone."""
    leases, releases, scripts = (samples[f"{what} of 50"] for what in ("lease", "release", "script"))

    def ratio(id_: str, what: str, ours: list[float], alone: list[float]) -> Result:
        return compare(
            id_, f"p95 of 50 at once, {what} / one alone", ours, alone, unit="ms", at_most=CONVOY_LIMIT
        )

    return [
        compare_speed("H3", "p95 of 50 at once, lease / script", leases, scripts, unit="ms", at_least=3),
        ratio("H3-lease", "lease", leases, samples["lease alone"]),
        ratio("H3-release", "release", releases, samples["release alone"]),
    ]


def _add(*parts: list[float]) -> list[float]:
    return [sum(each) for each in zip(*parts, strict=True)]
