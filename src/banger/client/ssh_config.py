"""What OpenSSH is told about VMs: one block for all of them, which needs no refresh, or one for each that is named.

Pure: texts out of values, and our fenced lines in and out of somebody's file, of which every other byte stays.
Refuses values that ssh_config(5) cannot hold, and a fence of which only a part is there.
"""

from __future__ import annotations

from banger.client.wire import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

BEGIN = "# >>> banger ssh-config >>>"
BEGIN_NEW = "# >>> banger ssh-config, which made this file >>>"
END = "# <<< banger ssh-config <<<"
_HEAD = "# Written by banger. To take it away: banger ssh-config --uninstall\n"
_FENCE_HINT = "remove what is left of the lines between {0!r} and {1!r} by hand, then try again"

# The post-quantum default takes seconds of CPU in a guest under software emulation.
_KEX = "KexAlgorithms ^curve25519-sha256"


def render_block(program: Sequence[str], identity_file: str, zone: str) -> str:
    """For all VMs, also those that are yet to come.

    The proxy gives ssh a connection and ends; host keys come from the daemon, which made them. ssh hands the proxy's
    command to a shell: the host's name stands in single quotes, and a name with one in it is none of ours
    (CVE-2023-51385). ForwardAgent is off even for who has it on for all hosts: a guest runs what is not trusted.
    """
    proxy = " ".join(_quote_for_shell(word) for word in program)
    known = " ".join(_quote(word) for word in program)
    lines = (
        f'Host *.{zone} "!*\'*"',
        f"    ProxyCommand {proxy} __ssh-proxy '%h'",
        "    ProxyUseFdpass yes",
        "    User root",
        f"    IdentityFile {_quote(identity_file)}",
        "    IdentitiesOnly yes",
        "    ForwardAgent no",
        "    StrictHostKeyChecking yes",
        f"    KnownHostsCommand {known} __ssh-known-host %H",
        "    UserKnownHostsFile /dev/null",
        "    GlobalKnownHostsFile /dev/null",
        "    HostKeyAlgorithms ssh-ed25519",
        "    UpdateHostKeys no",
        f"    {_KEX}",
    )
    return _HEAD + "\n".join(lines) + "\n"


def render_target(name: str, zone: str, target: dict[str, Any]) -> str:
    """For one VM as it runs now, in words that programs other than OpenSSH know, too. Its port may be another one at
    its next start."""
    lines = (
        f"Host {name} {name}.{zone}",
        f"    HostName {target['host']}",
        f"    Port {target['port']}",
        f"    User {target['user']}",
        f"    IdentityFile {_quote(target['identity_file'])}",
        "    IdentitiesOnly yes",
        "    ForwardAgent no",
        "    StrictHostKeyChecking yes",
        f"    UserKnownHostsFile {_quote(target['known_hosts_file'])}",
        "    GlobalKnownHostsFile /dev/null",
        f"    HostKeyAlias {target['host_key_alias']}",
        f"    {_KEX}",
    )
    return "\n".join(lines) + "\n"


def render_include(path: str) -> str:
    """Include takes a pattern, and only newer versions of OpenSSH expand tokens in it."""
    _check(path, "*?[%")
    return f'Include "{path}"'


def add_fenced(content: bytes | None, line: str) -> bytes:
    """With our line between its marks, first of all: what stands behind a Host line is for that host only. None is a
    file that is not there."""
    made = content is None or _is_made_by_us(content)
    begin = BEGIN_NEW if made else BEGIN
    fenced = f"{begin}\n{line}\n{END}\n".encode()
    return fenced + (remove_fenced(content) or b"" if content else b"")


def remove_fenced(content: bytes) -> bytes | None:
    """Without our lines; None when nothing is left of a file that we made. Raises Failure for a broken fence."""
    lines = _split(content)
    begins = [n for n, line in enumerate(lines) if line.strip() in (BEGIN.encode(), BEGIN_NEW.encode())]
    ends = [n for n, line in enumerate(lines) if line.strip() == END.encode()]
    if not begins and not ends:
        return content
    if len(begins) != 1 or len(ends) != 1 or ends[0] < begins[0]:
        raise Failure(
            "conflict",
            f"the marks of banger are not a pair: on line {_count(begins)} it begins, on line {_count(ends)} it ends",
            hint=_FENCE_HINT.format(BEGIN, END),
        )
    rest = b"".join(lines[: begins[0]] + lines[ends[0] + 1 :])
    return rest if rest or not _is_made_by_us(content) else None


def has_fence(content: bytes) -> bool:
    return remove_fenced(content) != content


def _is_made_by_us(content: bytes) -> bool:
    return any(line.strip() == BEGIN_NEW.encode() for line in _split(content))


def _split(content: bytes) -> list[bytes]:
    """At line feeds alone."""
    return [line + b"\n" for line in content.split(b"\n")[:-1]] + [content.rpartition(b"\n")[2]]


def _count(lines: list[int]) -> str:
    return " and ".join(str(number + 1) for number in lines) or "none"


def _quote_for_shell(word: str) -> str:
    from shlex import quote

    _check(word)
    return quote(word).replace("%", "%%")


def _quote(word: str) -> str:
    """In double quotes, a percent sign doubled: tokens are expanded afterwards."""
    _check(word)
    return '"' + word.replace("%", "%%") + '"'


def _check(word: str, also: str = "") -> None:
    if any(c in '"\\\n\r\0' + also for c in word) or "${" in word:
        raise Failure(
            "bad_request",
            f"ssh's configuration cannot hold the path {word!r}",
            hint="use a path of plain characters, for example: export XDG_CONFIG_HOME=$HOME/.config",
        )
