"""systemd-resolved without installing it: Debian's package would rewrite this machine's /etc/resolv.conf.

The packages come through apt, are unpacked into build/ once, and are laid over /usr in a mount namespace of the test's.
"""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.support.banger import ROOT
from tests.support.tiers import skip_or_fail

from banger.base.process import find_tool

CACHE = ROOT / "build" / "test-tools" / "systemd-resolved"
PROGRAM = Path("/usr/lib/systemd/systemd-resolved")
_PACKAGES = ("systemd-resolved", "libsystemd-shared")
_DBUS_PACKAGES = ("dbus-daemon", "dbus-system-bus-common", "libdbus-1-3")


def make_layer() -> Path | None:
    """A directory to lay over /usr; None where everything is installed. Skips where it cannot be had."""
    if PROGRAM.exists() and find_tool("resolvectl") and find_tool("dbus-daemon"):
        return None
    if not CACHE.exists():
        CACHE.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix="part-", dir=CACHE.parent))
        try:
            _unpack(part)
            part.chmod(0o755)
            os.rename(part, CACHE)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return CACHE / "usr"


def _unpack(part: Path) -> None:
    for tool in ("apt-get", "dpkg"):
        if find_tool(tool) is None:
            skip_or_fail(
                f"systemd-resolved is not installed and there is no {tool} to get it with", tier="host"
            )
    packages = _PACKAGES if find_tool("dbus-daemon") else _PACKAGES + _DBUS_PACKAGES
    download = ["apt-get", "-q", "download", *packages]
    done = subprocess.run(download, cwd=part, capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        skip_or_fail(f"systemd-resolved cannot be had: {done.stderr.strip()}", tier="host")
    for package in part.glob("*.deb"):
        subprocess.run(["dpkg", "-x", str(package), str(part)], check=True, timeout=60)
        package.unlink()
    if (part / "lib").exists():  # where /lib is a link to usr/lib, as everywhere by now
        shutil.copytree(part / "lib", part / "usr" / "lib", symlinks=True, dirs_exist_ok=True)
