"""`make bench-lab`: Firecracker measured in the lab; tables on stdout, raw numbers in build/bench-lab.json.

P1: the host's part of a VM, up to where the guest would start, against a tutorial's recipe (`naive.sh`): with the jail
and a snapshot, and without the jail and a copy. P2: a cold boot until the agent is ready, against the same kernel with
a one-line init on the same Firecracker. The stages of a whole `vm create`, and what it costs in processes and fsyncs.

The lab is emulated: everything takes ten times as long, Python still longer. What the ratios of P1 are on a real host
this cannot tell; they are for comparison with one another. So a missed target is told and is no failure. What is one:
anything of P1's VMs, none of which came to its start, that is left on the host.
"""

import io
import json
import re
import statistics
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

from tools.bench.boot import build_one_line_init
from tools.bench.lab_table import render
from tools.bench.measure import DRIFT_LIMIT
from tools.bench.trace import CALLS, Trace, parse_trace
from tools.lab.host import Lab
from tools.lab.recipe import OWNER
from tools.lab.stages import BANGER, VENV, ensure_installed_state
from tools.lab.states import open_lab

ROOT = Path(__file__).parents[2]
OUT = ROOT / "build"
STAGE_ROUNDS = 3
ROUNDS = {"setup": 7, "boot": 3}  # as many as fit into eight minutes
HOWS = ("jailed", "unjailed")
_PLACE = f"/home/{OWNER}/bench"
_CARRIED = ("__init__.py", "boot.py", "measure.py", "lab_inside.py")
_CONFIGS = {"jailed": "", "unjailed": "jailer_enabled = false\n"}
_SERVICES = ("banger", "banger-root")
_SECONDS = 900.0
_ID = re.compile(r"\b[0-9a-f]{12}\b")
_TRACES = ROOT / "tests" / "lab" / "inside" / "traces.py"
_NAIVE_TRACES = "ls -d /home/naive.*; ip -o link show type tun | cut -d: -f2; pgrep --list-full firecracker"

Measured = dict[str, Any]


def main() -> int:
    import importlib

    support = importlib.import_module("tests.support.banger")  # not a plain import: tests are not typed
    support.make_material("lab")
    lab = open_lab(ensure_installed_state(support.DATA / "banger"))
    OUT.mkdir(exist_ok=True)
    results: dict[str, Measured] = {"stages": {}, "counters": {}, "setup stages": {}, "P1": {}, "P2": {}}
    left: list[str] = []
    try:
        for how in HOWS:
            _configure(lab, how)
            tell(f"{how}: stages of vm create")
            results["stages"][how] = _measure_stages(lab)
            tell(f"{how}: counters")
            results["counters"][how] = _count(lab, how)
        lab.run("systemctl", "stop", "banger")
        _put_program(lab)
        for how in HOWS:
            lab.put(f"{_PLACE}/config/config.toml", _CONFIGS[how].encode(), user=OWNER)
            before = _find_traces(lab)
            tell(f"{how}: host set-up (P1)")
            samples = _run_inside(lab, "setup", how)
            results["setup stages"][how] = summarize_stages(samples.pop("stages"))
            results["P1"][how] = summarize(samples, inverse=True)
            left += [f"{how}: {trace}" for trace in _find_traces(lab) if trace not in before]
            tell(f"{how}: cold boot (P2)")
            results["P2"][how] = summarize(_run_inside(lab, "boot", how), inverse=False)
    finally:
        lab.close()
    (OUT / "bench-lab.json").write_text(json.dumps(results, indent=2) + "\n")
    print("\n".join(render(results, HOWS)))
    for trace in left:
        tell(f"left behind by P1: {trace}")
    return 1 if left else 0


def tell(what: str) -> None:
    print(f"• bench-lab: {time.strftime('%X')} {what}", file=sys.stderr, flush=True)


def summarize(samples: Measured, *, inverse: bool) -> Measured:
    """Medians, their ratio (how many times faster, where `inverse`), all that was measured, and whether the reference
    has drifted meanwhile, which makes the ratio worthless."""
    candidate, reference = (statistics.median(samples[name]) for name in ("candidate", "reference"))
    references = samples["reference"]
    halves = [
        statistics.median(half)
        for half in (references[: len(references) // 2], references[len(references) // 2 :])
    ]
    return {
        "candidate": candidate,
        "reference": reference,
        "ratio": reference / candidate if inverse else candidate / reference,
        "drifted": max(halves) > DRIFT_LIMIT * min(halves),
        "samples": samples,
    }


def summarize_stages(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Medians; a stage that a round did not have took no time in it."""
    return {name: round(statistics.median(each.get(name, 0) for each in rounds), 2) for name in rounds[-1]}


def summarize_trace(daemon: Trace, helper: Trace) -> dict[str, list[str]]:
    """Which they were. A VMM syncs files when its guest flushes its disks, which is no doing of ours."""
    found: dict[str, list[str]] = {"processes": [], "syncs": [], "guest_syncs": []}
    for name, trace in (("daemon", daemon), ("helper", helper)):
        found["processes"] += [f"{name}: {' → '.join(programs)}" for programs in trace.processes]
        for sync in trace.syncs:
            kind = "guest_syncs" if sync.program == "firecracker" else "syncs"
            found[kind].append(f"{sync.program or name}: {sync.call} {re.sub(_ID, 'ID', sync.file)}")
    return found


def _configure(lab: Lab, how: str) -> None:
    lab.put("/etc/banger/config.toml", _CONFIGS[how].encode())
    lab.run("sudo", BANGER, "system", "restart", user=OWNER)


def _measure_stages(lab: Lab) -> dict[str, float]:
    """Milliseconds of each stage, the host's and the guest's. The first VM after the daemon's start does not count."""
    rounds: list[dict[str, float]] = []
    for _ in range(1 + STAGE_ROUNDS):
        _banger(lab, "vm", "create", "--name", "bench")
        vm = json.loads(_banger(lab, "vm", "show", "bench", "--json"))["vm"]
        _banger(lab, "vm", "delete", "--force", "bench")
        rounds.append(
            {each["name"]: each["duration_ms"] for each in vm["boot_stages"]}
            | {f"guest: {each['name']}": each["duration_ms"] for each in vm["guest_stages"]}
        )
    return summarize_stages(rounds[1:])


def _count(lab: Lab, how: str) -> dict[str, list[str]]:
    """Of daemon and helper and what they begin, from a create until its VM runs. strace makes them slow, so this is
    not measured in time. What it wrote is kept."""
    pids = [
        lab.run("systemctl", "show", unit, "--property=MainPID", "--value").stdout.strip()
        for unit in _SERVICES
    ]
    tracing = []
    for unit, pid in zip(_SERVICES, pids, strict=True):
        argv = ("strace", "-f", "-y", "-T", "-e", f"trace={CALLS}", "-o", f"/run/trace-{unit}", "-p", pid)
        tracing.append(lab.start(argv, timeout_s=_SECONDS))
    for pid in pids:
        untraced = f"grep -L 'TracerPid:.[1-9]' /proc/{pid}/task/*/status"
        lab.run("sh", "-c", f'while [ -n "$({untraced})" ]; do sleep 0.1; done')
    _banger(lab, "vm", "create", "--name", "bench")
    for each in tracing:
        each.signal(2)
        each.wait()
    texts = [lab.get(f"/run/trace-{unit}").decode("utf-8", "replace") for unit in _SERVICES]
    for unit, text in zip(_SERVICES, texts, strict=True):
        (OUT / f"bench-lab-{how}-{unit}.strace").write_text(text)
    _banger(lab, "vm", "delete", "--force", "bench")
    return summarize_trace(*map(parse_trace, texts))


def _find_traces(lab: Lab) -> list[str]:
    """Everything on the host by which one sees that a VM has been there, the tutorial's included."""
    found = json.loads(lab.run("python3", "-I", "-S", "-", stdin=_TRACES.read_bytes()).out)
    naive = lab.run("sh", "-c", _NAIVE_TRACES, check=False).stdout.splitlines()
    return [f"{kind}: {each}" for kind in found for each in found[kind]] + naive


def _banger(lab: Lab, *words: str) -> str:
    return lab.run(BANGER, *words, user=OWNER, timeout_s=_SECONDS).stdout


def _put_program(lab: Lab) -> None:
    archive = io.BytesIO()
    with tempfile.TemporaryDirectory(prefix="bb") as work, tarfile.open(fileobj=archive, mode="w") as tar:
        for name in _CARRIED:
            tar.add(ROOT / "tools" / "bench" / name, f"tools/bench/{name}")
        tar.add(ROOT / "tools" / "bench" / "naive.sh", "naive.sh")
        tar.add(build_one_line_init(Path(work)), "one-line.cpio")
    lab.run("mkdir", "-p", f"{_PLACE}/config", user=OWNER)
    lab.put("/home/bench.tar", archive.getvalue())
    lab.run("tar", "-xf", "/home/bench.tar", "-C", _PLACE, "--no-same-owner", user=OWNER)


def _run_inside(lab: Lab, what: str, how: str) -> Measured:
    program = (f"{VENV}/bin/python", "-m", "tools.bench.lab_inside", what, how, str(ROUNDS[what]), _PLACE)
    environment = {"BANGER_CONFIG_DIR": f"{_PLACE}/config", "BANGER_RUNTIME_DIR": "/run/banger"}
    done = lab.run(*program, user=OWNER, cwd=_PLACE, env=environment, timeout_s=_SECONDS)
    samples: Measured = json.loads(done.stdout.splitlines()[-1])
    return samples


if __name__ == "__main__":
    sys.exit(main())
