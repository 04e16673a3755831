"""The install record: what is, or is about to be, laid down and for whom. Written before anything else is.

So an installation that was killed at any step can be completed or undone. Readable by all: the owner's client
looks whether the system runs their daemon.
"""

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

from banger.client.wire import Failure
from banger.installation import places
from banger.installation.tree import Tree

_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class RecordedFile:
    path: str
    digest: str
    mode: int


@dataclass(frozen=True, kw_only=True)
class Record:
    """`forwarding_before` is the switch's value before the first installation; None when it was left alone."""

    version: str
    owner: str
    uid: int
    installed_at: str
    finished: bool
    files: tuple[RecordedFile, ...]
    forwarding_before: str | None = None

    def find(self, path: str) -> RecordedFile | None:
        return next((file for file in self.files if file.path == path), None)

    def finish(self, paths: set[str]) -> "Record":
        """With these files only, and done."""
        return replace(self, finished=True, files=tuple(file for file in self.files if file.path in paths))


def find_record(tree: Tree) -> Record | None:
    """Raises Failure for a record that makes no sense: nothing is removed on its word."""
    found = tree.find(places.RECORD)
    if found is None:
        return None
    try:
        return _parse(json.loads(found.content))
    except (ValueError, KeyError, TypeError) as error:
        raise Failure(
            "conflict",
            f"{places.RECORD} is damaged: {error}",
            hint=f"sudo rm {places.RECORD}, then: sudo banger system install",
        ) from error


def write_record(tree: Tree, record: Record) -> None:
    text = json.dumps({"format": _FORMAT, **asdict(record)}, indent=2) + "\n"
    tree.write(places.RECORD, text.encode(), mode=0o644)


def _parse(data: Any) -> Record:
    if not isinstance(data, dict) or data.pop("format", None) != _FORMAT:
        raise ValueError(f"it is not of format {_FORMAT}")
    files = tuple(RecordedFile(**file) for file in data.pop("files"))
    record = Record(**data, files=files)
    for name, kind in (("owner", str), ("uid", int), ("version", str), ("finished", bool)):
        if type(getattr(record, name)) is not kind:
            raise ValueError(f"{name} is {getattr(record, name)!r}")
    for file in files:
        if type(file.path) is not str or type(file.digest) is not str or type(file.mode) is not int:
            raise ValueError(f"{file!r} is no file")
    return record
