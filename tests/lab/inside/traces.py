"""Runs in the lab: what there is of banger's on this host, as JSON, by kind. Looks, and changes nothing."""

import json
import os
import subprocess
from pathlib import Path

PROGRAMS = ("qemu-system", "firecracker", "jailer", "banger-root", "banger.daemon")
PLACES = ("/etc/banger", "/run/banger", "/run/banger-root", "/usr/local/lib/banger", "/srv/jailer")


def run(*argv):
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def processes():
    """Virtual machine monitors and banger's own, by command line."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        line = b" ".join(words).decode("utf-8", "replace")
        if int(entry.name) != os.getpid() and any(name in line for name in PROGRAMS):
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
    return [name for name in os.listdir("/dev/mapper") if name != "control"]


def namespaces():
    return run("ip", "netns", "list").split()


def mounts():
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if "banger" in line or "jailer" in line:
            yield line


def cgroups():
    """But for the two units' own."""
    for directory, names, _ in os.walk("/sys/fs/cgroup"):
        for name in names:
            if ("banger" in name or "firecracker" in name) and not name.endswith(".service"):
                yield f"{directory}/{name}"


def files():
    yield from (place for place in PLACES if os.path.lexists(place))
    for place in ("/etc", "/usr/local"):
        yield from (str(path) for path in Path(place).rglob("*banger*") if str(path) not in PLACES)


def vms():
    for home in Path("/home").iterdir():
        yield from map(str, (home / ".local/state/banger/vms").glob("*"))


KINDS = (processes, links, tables, elements, loops, maps, namespaces, mounts, cgroups, files, vms)
print(json.dumps({kind.__name__: found for kind in KINDS if (found := sorted(kind()))}))
