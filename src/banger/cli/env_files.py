"""`--env-file`: variables for what runs in a guest, out of files, so that their values are on no command line.

The syntax is docker's: a line is KEY=VALUE, with everything behind the `=` as it is; KEY alone takes our own value, if
there is one; empty lines and those that begin with `#` are skipped. What is wrong is told by file and line, never with
the line itself.
"""

from __future__ import annotations

import os

from banger.cli.values import refuse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from banger.cli.parser import Arguments
    from banger.client.wire import Failure

_BYTES_MAX = 256 * 1024  # of a request's 1 MiB


def collect_environment(arguments: Arguments) -> list[str]:
    """KEY=VALUE of the files in their order, then of the flags: what comes later wins."""
    entries: list[str] = []
    for path in arguments.get("env_file") or ():
        entries += read_env_file(path)
    return entries + list(arguments.get("env") or ())


def read_env_file(path: str) -> list[str]:
    """Raises Failure, one line of it."""
    try:
        with open(path, "rb") as file:
            content = file.read(_BYTES_MAX + 1)
    except OSError as error:
        raise refuse(f"the file {path!r} cannot be read: {error.strerror}", hint=f"ls -l {path}") from error
    if len(content) > _BYTES_MAX:
        raise refuse(f"the file {path!r} is larger than 256 KiB", hint="--env-file takes lines of KEY=VALUE")
    entries = []
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        entry = _read_line(path, number, line.removesuffix(b"\r"))
        if entry is not None:
            entries.append(entry)
    return entries


def _read_line(path: str, number: int, line: bytes) -> str | None:
    try:
        text = line.decode()
    except UnicodeDecodeError:
        raise _refuse_line(path, number, "is not UTF-8") from None
    if "\0" in text:
        raise _refuse_line(path, number, "has a NUL in it")
    text = text.lstrip()
    if not text or text.startswith("#"):
        return None
    key, equals, value = text.partition("=")
    if not key:
        raise _refuse_line(path, number, "has no name before the =")
    if any(character.isspace() for character in key):
        raise _refuse_line(path, number, "has white space in the variable's name")
    if not equals:
        return f"{key}={os.environ[key]}" if key in os.environ else None
    return f"{key}={value}"


def _refuse_line(path: str, number: int, why: str) -> Failure:
    return refuse(f"{path}:{number} {why}", hint="a line is KEY=VALUE, or KEY for a variable of your own")
