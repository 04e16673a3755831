"""`make bench`: all measurements, a table on stdout, build/bench.json. Exit status 1 when a target is missed."""

import asyncio
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from tools.bench import boot, cli, hostnet, records, rpc, workspace
from tools.bench.measure import Result, render_table, write_results

from banger.base.paths import find_paths
from banger.base.progress import Silent
from banger.daemon.composition import GUEST_PROGRAM
from banger.model.image import DEFAULT_IMAGE
from banger.model.kernel import DEFAULT_KERNEL
from banger.services.images.service import ImageService
from banger.services.kernels.service import KernelService
from banger.store.sqlite import open_store
from banger.vmm.qemu.backend import QemuVmm

ROOT = Path(__file__).parents[2]
VMS = 100


def main() -> int:
    named = set(sys.argv[1:])
    wanted = named or {"P2", "P7", "P8", "W1"} | hostnet.IDS
    results: list[Result] = []
    if wanted & hostnet.IDS:
        if obstacle := hostnet.find_obstacle():
            print(f"‼ H1, H2, H3 ARE SKIPPED: {obstacle}", file=sys.stderr)
            if named:
                return 1
        else:
            print("• H1, H2, H3: taps and NAT in a network namespace", file=sys.stderr)
            results += hostnet.run(wanted)
    if "P2" in wanted:
        print("• P2: booting", file=sys.stderr)
        results += asyncio.run(_bench_boot())
    if "W1" in wanted:
        print("• W1: a repository goes in", file=sys.stderr)
        results += workspace.run()
    if wanted & {"P7", "P8"}:
        with tempfile.TemporaryDirectory(prefix="bb") as work:
            results += _bench_daemon(Path(work), wanted)
    write_results(results, ROOT / "build" / "bench.json")
    print(render_table(results))
    return 0 if all(result.met for result in results) else 1


async def _bench_boot() -> list[Result]:
    data = Path(os.environ.get("BANGER_TEST_DATA") or find_paths().data)
    kernel = await KernelService(data / "kernels", GUEST_PROGRAM).ensure(Silent(), DEFAULT_KERNEL)
    image = await ImageService(data / "images").ensure(Silent(), DEFAULT_IMAGE)
    vmm = QemuVmm()
    await vmm.capabilities()
    try:
        return await boot.run(vmm, kernel, image)
    finally:
        await vmm.close()


def _bench_daemon(work: Path, wanted: set[str]) -> list[Result]:
    """The wheel, installed as a user would, with a daemon that knows a hundred VMs."""
    print("• P7, P8: installing the wheel", file=sys.stderr)
    environment = cli.clean_environment(
        HOME=str(work),
        XDG_STATE_HOME=str(work / "state"),
        XDG_DATA_HOME=str(work / "data"),
        XDG_CONFIG_HOME=str(work / "config"),
        XDG_CACHE_HOME=str(work / "cache"),
        BANGER_RUNTIME_DIR=str(work / "run"),
    )
    python = _install(work / "venv")
    (work / "state" / "banger").mkdir(parents=True, mode=0o700)
    store = open_store(work / "state" / "banger" / "banger.db")
    for record in records.make_records(VMS):
        store.vms.insert(record)
    store.close()
    script = python.with_name("banger")
    subprocess.run([script, "daemon", "start"], env=environment, check=True, stdout=subprocess.DEVNULL)
    results: list[Result] = []
    try:
        if "P7" in wanted:
            results.append(cli.run(python, script, environment))
            forbidden = cli.find_forbidden(cli.list_imports(python, environment))
            assert not forbidden, f"vm list imports {forbidden}"
        if "P8" in wanted:
            results += rpc.run(str(work / "run" / "daemon.sock"), work)
    finally:
        subprocess.run([script, "daemon", "stop"], env=environment, check=True, stdout=subprocess.DEVNULL)
    return results


def _install(place: Path) -> Path:
    """A fresh environment with the wheel; its dependencies come from the development environment."""
    venv.create(place, with_pip=False)
    python = place / "bin" / "python"
    with tempfile.TemporaryDirectory() as wheels:
        pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
        subprocess.run(
            [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", wheels, str(ROOT)], check=True
        )
        (wheel,) = Path(wheels).glob("*.whl")
        subprocess.run([*pip, f"--python={python}", "install", "--no-deps", str(wheel)], check=True)
    (site,) = (place / "lib").glob("python3.*/site-packages")
    (ours,) = (Path(sys.prefix) / "lib").glob("python3.*/site-packages")
    for name in ("msgspec", "qemu", "cryptography", "lz4", "zstandard", "cffi"):
        (site / name).symlink_to(ours / name)
    for extension in ours.glob("_cffi_backend*"):
        (site / extension.name).symlink_to(extension)
    return python


if __name__ == "__main__":
    sys.exit(main())
