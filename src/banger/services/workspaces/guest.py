"""A workspace as the guest has it: the small programs that its shell and git run for us, and what they answer.

In the guest a workspace is an ordinary repository. Beside its own index it has another one, in `.git/banger`, which
knows what was brought in and compares bytes as they are; `refs/banger/prepared` is the commit of it. Whatever the guest
answers is judged as anything that a stranger says. Words are arguments, never part of a program.
"""

import asyncio
import re
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from typing import Literal, NamedTuple

from banger.base.problem import Code, Problem, unavailable
from banger.model.returned import show_path
from banger.model.workspace import is_object_id, list_some
from banger.services.workspaces import scripts
from banger.services.workspaces.shell import OUTPUT_BYTES, Pack, Shell

_MOST_COMMITS = 10_000
_NUMBER = re.compile(r"[0-9]{1,18}")
Force = Literal["", "accept", "yes"]


class Seen(NamedTuple):
    """What a guest says of a workspace. `work` are paths that differ from what was brought in, `commits` those on its
    HEAD, or on the branch that goes, that were not brought in; `uncommitted` paths that differ from its HEAD, where
    that has moved."""

    git: str
    free_bytes: int
    kind: str
    source: str
    is_locked: bool
    prepared: str
    base: str
    head: str
    branch: str
    is_interrupted: bool
    commits: tuple[str, ...]
    work: tuple[bytes, ...]
    uncommitted: frozenset[bytes] | None

    def list_work(self, *, commits_are_known: bool) -> list[bytes]:
        """What is nowhere else: neither was it brought in nor is it in a commit that the host has."""
        if self.uncommitted is None or not commits_are_known:
            return [*self.work]
        return [path for path in self.work if path in self.uncommitted]


class Target(NamedTuple):
    """What a workspace is to be. `tree` is the base's for export and diff where it is the snapshot's own, else empty;
    `is_clean`: the snapshot holds just what the base does. `object_count` objects come."""

    snapshot: str
    base: str
    branch: str
    tree: str
    is_clean: bool
    object_count: int
    borders: tuple[str, ...]
    tags: tuple[tuple[str, str], ...]

    def render_arguments(self, place: str, force: Force) -> tuple[str, ...]:
        clean, count = "same" if self.is_clean else "", str(self.object_count)
        return (place, self.snapshot, self.base, self.branch, self.tree, clean, count, force)

    def render_header(self) -> bytes:
        lines = [f"border {oid}" for oid in self.borders] + [f"tag {name} {oid}" for name, oid in self.tags]
        return "".join(f"{line}\n" for line in (*lines, ".")).encode()


def render_config(settings: Mapping[str, str], object_format: str) -> str:
    """git-config(1), Syntax."""
    version = 0 if object_format == "sha1" else 1
    text = f"[core]\n\trepositoryformatversion = {version}\n\tfilemode = true\n\tbare = false\n"
    text += "\tlogallrefupdates = true\n"
    if version:
        text += f"[extensions]\n\tobjectformat = {object_format}\n"
    for key, value in settings.items():
        *section, name = key.split(".")
        head = f'{section[0]} "{section[1]}"' if len(section) == 2 else section[0]
        plain = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
        text += f'[{head}]\n\t{name} = "{plain}"\n'
    return text


def staging_of(guest_path: str) -> str:
    above, _, name = guest_path.rpartition("/")
    return f"{above}/.{name}.banger"


async def look(shell: Shell, guest_path: str, branch: str = "") -> Seen:
    """What is there. Changes nothing but what an interrupted git left behind."""
    output = await shell.run(scripts.LOOK, (guest_path, branch))
    if len(output) >= OUTPUT_BYTES:  # what is missing of it would be work that nobody sees
        raise Problem(
            Code.OPERATION_FAILED,
            f"{shell.vm_name} tells of more changed files in {guest_path} than can be listed",
            hint=f"banger vm exec {shell.vm_name} -- git -C {guest_path} status",
        )
    return await asyncio.to_thread(parse_seen, output)


def parse_seen(untrusted_output: bytes) -> Seen:
    """Lines of a word and a value; then lists, each behind two NULs and its name, of paths with a NUL behind each."""
    head, *lists = re.split(rb"\0{2,}", untrusted_output)
    named = {name: _parse_status(rest) for name, _, rest in (each.partition(b"\0") for each in lists)}
    values: dict[str, str] = {}
    commits: list[str] = []
    for line in head.decode("utf-8", "replace").splitlines():
        word, _, value = line.partition(" ")
        if word == "commit":
            commits.append(_oid(value))
        else:
            values[word] = value.strip()
    work = named.get(b"work", [])
    if "target" in values:
        unlike = set(named.get(b"unlike", []))
        work = [path for path in work if path in unlike]
    free = values.get("free", "")
    return Seen(
        git=values.get("git", "none"),
        free_bytes=int(free) * 1024 if _NUMBER.fullmatch(free) else 0,
        kind=values.get("kind", "absent"),
        source=values.get("source", ""),
        is_locked="locked" in values,
        prepared=_oid(values.get("prepared", "")),
        base=_oid(values.get("base", "")),
        head=_oid(values.get("head", "")),
        branch="" if is_object_id(values.get("on", "")) else show_path(values.get("on", "").encode()),
        is_interrupted="target" in values,
        commits=tuple(dict.fromkeys(commit for commit in commits[:_MOST_COMMITS] if commit)),
        work=tuple(work),
        uncommitted=frozenset(named[b"uncommitted"]) if b"uncommitted" in named else None,
    )


def _parse_status(untrusted_output: bytes) -> list[bytes]:
    """git-status(1), porcelain: two letters, the second about the working tree, and a path."""
    records = (record for record in untrusted_output.split(b"\0") if len(record) > 3)
    return [record[3:] for record in records if record[1:2] != b" "]


def _oid(word: str) -> str:
    return word if is_object_id(word) else ""


async def list_new(shell: Shell, guest_path: str) -> list[bytes]:
    """Files that the guest's git neither tracks nor ignores."""
    return [path for path in (await shell.run(scripts.LIST_NEW, (guest_path,))).split(b"\0") if path]


async def list_objects(shell: Shell, guest_path: str, seen: Seen) -> frozenset[str]:
    """What the guest has of what was brought in beside the base's own."""
    output = await shell.run(scripts.LIST_OBJECTS, (guest_path, seen.base, seen.prepared))
    words = (line.rpartition(" ")[2] for line in output.decode("ascii", "replace").splitlines())
    return frozenset(word for word in words if is_object_id(word))


async def build(
    shell: Shell, place: str, to: str, target: Target, about: tuple[str, str], pack: Pack, *, replace: bool
) -> None:
    """A workspace that is not there yet, made at `place` and then renamed to `to`, if that is not empty. `about` are
    its configuration and its source."""
    arguments = (*target.render_arguments(place, "yes" if replace else ""), to, *about)
    await shell.run(scripts.BUILD, arguments, _behind(target.render_header(), pack))


async def update(shell: Shell, place: str, target: Target, pack: Pack, force: Force) -> None:
    """Raises `conflict` where something of the guest's is in the way, unless forced; nothing has been overwritten
    then. `accept`: what is there of tracked files is known elsewhere and may go."""
    arguments = target.render_arguments(place, force)
    await shell.run(scripts.UPDATE, arguments, _behind(target.render_header(), pack))


async def swap(shell: Shell, staged: str, guest_path: str, *, replace: bool) -> None:
    await shell.run(scripts.SWAP, (staged, guest_path, "yes" if replace else ""))


async def _behind(header: bytes, pack: Pack) -> Pack:
    yield header
    async with aclosing(pack) as pieces:
        async for data in pieces:
            yield data


async def clean(shell: Shell, staged: str) -> None:
    await shell.run(scripts.CLEAN, (staged,))


async def unlock(shell: Shell, guest_path: str) -> None:
    """Ends a read-only mount."""
    await shell.run(scripts.UNLOCK, (guest_path,))


async def lock(shell: Shell, guest_path: str) -> None:
    """Nothing can be written there until the guest boots again, or its root says otherwise. Idempotent."""
    await shell.run(scripts.LOCK, (guest_path,))


def require_git(seen: Seen, vm_name: str) -> None:
    """Before anything is changed."""
    if seen.git == "none":
        raise unavailable(
            f"{vm_name} has no git, which a workspace needs",
            hint=f"banger vm exec {vm_name} -- apt-get install -y git; or use an image with git",
        )


def describe_paths(paths: Sequence[bytes]) -> str:
    return list_some(show_path(path) for path in paths)
