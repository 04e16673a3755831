"""The two labs that are kept: one that has booted, and that one with banger installed as a user installs it.

Owns BUILD/booted-KEY/ and BUILD/installed-KEY/, one of each, made in this order. The first depends on the recipe,
QEMU and what seldom changes of the payload; the second on banger's wheel as well. So a change to banger costs one
installation, and a run without a change costs nothing.
"""

import hashlib
import tempfile
import zipfile
from pathlib import Path

from tools.lab import recipe
from tools.lab.build import BUILD, Base, ensure_base, read_qemu_version, told
from tools.lab.channel import ChannelError, Done
from tools.lab.host import Disks, Lab, Listeners, plan_qemu
from tools.lab.payload import PAYLOAD, build_wheel, ensure_home, ensure_wheels
from tools.lab.states import State, ensure_state, get_tsc_khz, hold, open_lab

from banger.vmm.firecracker.programs import VERSION

VENV = f"/home/{recipe.OWNER}/banger"
BANGER = f"{VENV}/bin/banger"
_STEP_S = 600.0
_NETWORK_TRIES = 3


def ensure_installed_state(data: Path) -> State:
    """banger runs as a service of its owner. `data` has the kernel and image that the owner gets
    (XDG_DATA_HOME/banger)."""
    BUILD.mkdir(parents=True, exist_ok=True)
    with hold(BUILD / ".lock"), tempfile.TemporaryDirectory(prefix="banger-wheel-") as directory:
        booted = _ensure_booted_state(data)
        wheel = build_wheel(Path(directory))
        place = BUILD / f"installed-{_render_installed_key(booted, wheel)}"
        return ensure_state(place, booted.base, booted.tsc_khz, lambda: _install(booted, wheel))


def ensure_booted_state(data: Path) -> State:
    """A host with an owner-to-be, who has kernel, image and banger's dependencies, and no banger."""
    BUILD.mkdir(parents=True, exist_ok=True)
    with hold(BUILD / ".lock"):
        return _ensure_booted_state(data)


def install_wheel(lab: Lab, wheel: Path) -> Done:
    lab.put(f"{PAYLOAD}/wheels/{wheel.name}", wheel.read_bytes())
    return _pip(lab, "banger")


def install_system(lab: Lab) -> Done:
    argv = ("sudo", BANGER, "system", "install", "--owner", recipe.OWNER)
    return lab.run(*argv, user=recipe.OWNER, timeout_s=_STEP_S)


def setup_firecracker(lab: Lab) -> Done:
    """Out of the payload, as on a host that reaches nothing."""
    source = f"--from={PAYLOAD}/firecracker/{VERSION}"
    return lab.run("sudo", BANGER, "setup", "firecracker", source, user=recipe.OWNER, timeout_s=_STEP_S)


def _ensure_booted_state(data: Path) -> State:
    base, home, khz = ensure_base(), ensure_home(data), get_tsc_khz()
    place = BUILD / f"booted-{_render_booted_key(base, home)}"
    return ensure_state(place, base, khz, lambda: _boot(base, home, khz))


def _boot(base: Base, home: Path, khz: int) -> Lab:
    with told("boot"):
        lab = Lab(base, Disks(base.disk, home), tsc_khz=khz)
    try:
        with told("owner's home"):
            _mount_home(lab)
            lab.run("python3", "-m", "venv", VENV, user=recipe.OWNER, timeout_s=_STEP_S)
            _pip(lab, *sorted(wheel.name.split("-")[0] for wheel in ensure_wheels().glob("*.whl")))
    except BaseException:
        lab.close()
        raise
    return lab


def _install(booted: State, wheel: Path) -> Lab:
    lab = open_lab(booted)
    try:
        with told("installation"):
            install_wheel(lab, wheel)
            setup_firecracker(lab)
            install_system(lab)
            _open_network(lab)
    except BaseException:
        lab.close()
        raise
    return lab


def _open_network(lab: Lab) -> None:
    """The first bridge of a host wants its modules, and on a busy machine that can take longer than the daemon waits;
    when it is started again they are there."""
    for _ in range(_NETWORK_TRIES):
        done = lab.run(BANGER, "doctor", user=recipe.OWNER, check=False)
        if "bng-" in lab.run("ls", "/sys/class/net").stdout:
            return
        lab.run("sudo", BANGER, "system", "restart", user=recipe.OWNER, timeout_s=_STEP_S)
    raise ChannelError(f"banger has no bridge in the lab: {done}")


def _mount_home(lab: Lab) -> None:
    """What is on the disk was laid out by whoever runs the tests; here it becomes its owners'."""
    lab.run("sh", "-c", "echo '/dev/vdb /home ext4 defaults 0 0' >> /etc/fstab; mount /home")
    lab.run("chown", "--recursive", "root:root", PAYLOAD)
    for user in (recipe.OWNER, recipe.OTHER):
        lab.run("chown", "--recursive", f"{user}:{user}", f"/home/{user}")
        lab.run("chmod", "--recursive", "go=", f"/home/{user}")


def _pip(lab: Lab, *names: str) -> Done:
    """From the payload's wheels, and no index."""
    source = ("--no-index", f"--find-links={PAYLOAD}/wheels")
    argv = (f"{VENV}/bin/pip", "install", "--quiet", "--disable-pip-version-check", *source, *names)
    return lab.run(*argv, user=recipe.OWNER, timeout_s=_STEP_S)


def _render_booted_key(base: Base, home: Path) -> str:
    argv = plan_qemu("qemu", base, Path("/"), Listeners(0, 1, 2), tsc_khz=0, incoming=False)
    return _digest(Path(__file__).read_text(), base.digest, home.name, read_qemu_version(), *argv)


def _render_installed_key(booted: State, wheel: Path) -> str:
    """Of the wheel's files: the archive itself has their times in it."""
    with zipfile.ZipFile(wheel) as archive:
        files = [f"{name} {archive.getinfo(name).CRC}" for name in sorted(archive.namelist())]
    return _digest(booted.memory.parent.name, *files)


def _digest(*inputs: str) -> str:
    return hashlib.sha256("\0".join(inputs).encode()).hexdigest()[:12]
