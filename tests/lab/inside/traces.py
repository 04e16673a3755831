"""Runs in the lab: what there is of banger's on this host, as JSON, by kind. Looks, and changes nothing."""

import json
import os
import subprocess
from contextlib import suppress
from pathlib import Path

PROGRAMS = ("qemu-system", "firecracker", "jailer", "banger-root", "banger.daemon")
PLACES = ("/etc/banger", "/run/banger", "/run/banger-root", "/usr/local/lib/banger", "/var/lib/banger-root")


def run(*argv):
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def processes():
    """Virtual machine monitors and banger's own, by command line; dead ones that nobody has reaped, by name."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            name, _, rest = (entry / "stat").read_text().partition("(")[2].rpartition(")")
        except OSError:
            continue
        dead = rest.split()[0] == "Z"
        line = f"{name} (not reaped)" if dead else b" ".join(words).decode("utf-8", "replace")
        if int(entry.name) != os.getpid() and any(program in line for program in PROGRAMS):
            yield line[:200]


def links():
    for link in json.loads(run("ip", "-j", "link")):
        if link["ifname"].startswith(("bng-", "br-banger")):
            yield link["ifname"]


def tables():
    for item in json.loads(run("nft", "-j", "list", "tables"))["nftables"]:
        if "table" in item:
            yield f"{item['table']['family']} {item['table']['name']}"


def elements():
    """Addresses that the firewall's sets and maps know."""
    for item in json.loads(run("nft", "-j", "list", "ruleset"))["nftables"]:
        for kind in ("set", "map"):
            for element in item.get(kind, {}).get("elem", ()):
                text = json.dumps(element)
                if item[kind]["table"] == "banger" and "10.209.0." in text:
                    yield f"{item[kind]['family']} {item[kind]['name']} {text}"


def loops():
    found = run("losetup", "--list", "--noheadings", "--output", "NAME,BACK-FILE")
    return [" ".join(line.split()) for line in found.splitlines()]


def maps():
    """By the kernel's own account: a map has no node below /dev/mapper until udev has made one."""
    for device in Path("/sys/block").glob("dm-*"):
        with suppress(OSError):  # gone meanwhile, or going
            yield (device / "dm" / "name").read_text().strip()


def namespaces():
    return [line.split()[0] for line in run("ip", "netns", "list").splitlines()]


def mounts():
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if "banger" in line or "jailer" in line:
            yield line


def cgroups():
    """But for the two units' own."""
    for directory, names, _ in os.walk("/sys/fs/cgroup"):
        for name in names:
            path = f"{directory}/{name}"
            if ("banger" in path or "firecracker" in path) and ".service" not in path:
                yield path


def jails():
    """What is in the directory of jails, two levels of it: the program, the VM."""
    place = Path("/var/lib/banger-root/jails")
    return [str(path) for pattern in ("*", "*/*") for path in place.glob(pattern)]


def files():
    yield from (place for place in PLACES if os.path.lexists(place))
    for place in ("/etc", "/usr/local"):
        yield from (str(path) for path in Path(place).rglob("*banger*") if str(path) not in PLACES)


def sockets():
    return map(str, Path("/run/banger/vms").glob("*"))


def vms():
    for home in Path("/home").iterdir():
        yield from map(str, (home / ".local/state/banger/vms").glob("*"))


KINDS = (
    *(processes, links, tables, elements, loops, maps, namespaces, mounts),
    *(cgroups, jails, files, sockets, vms),
)
print(json.dumps({kind.__name__: found for kind in KINDS if (found := sorted(kind()))}))
