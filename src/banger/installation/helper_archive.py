"""The helper as one file: a zip archive that Python runs, made of the contract and the helper alone.

The same sources give the same bytes on every machine, so a digest says whether the installed helper, the one that
runs and the one that this banger brings are the same.
"""

import hashlib
import zipfile
from io import BytesIO
from pathlib import Path

# Every module that may get into root's hands, by where it is in the package `banger`.
_SOURCES = (
    "__init__.py",
    "privileged/__init__.py",
    "privileged/contract/*.py",
    "privileged/helper/*.py",
)
_MAIN = b"""\
import sys

from banger.privileged.helper.__main__ import main

sys.exit(main())
"""
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the oldest time a zip archive can tell
_BUILD_DIGITS = 16


def render_archive(package: Path, python: str) -> bytes:
    """The file's bytes. -I and -S: nothing of the caller's environment, user or site packages is imported."""
    sources = sorted(path for pattern in _SOURCES for path in package.glob(pattern))
    file = BytesIO()
    file.write(f"#!{python} -IS\n".encode())
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        _add(archive, "__main__.py", _MAIN)
        for path in sources:
            _add(archive, "banger/" + path.relative_to(package).as_posix(), path.read_bytes())
    return file.getvalue()


def digest_build(content: bytes) -> str:
    """What the helper calls its build in its greeting."""
    return hashlib.sha256(content).hexdigest()[:_BUILD_DIGITS]


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.create_system = 3  # Unix, wherever it is made
    entry.external_attr = 0o100644 << 16
    archive.writestr(entry, content)
