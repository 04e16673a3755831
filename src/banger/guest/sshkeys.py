"""SSH keys made on the host: one host key for each VM, one key pair for the owner.

A guest so boots with a key that the host knows already, and nothing is trusted on first use. Owns the
owner's key file: created once, never changed, never deleted. `cryptography` is imported when a key is
made, because importing it takes longer than most commands.
"""

import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from banger.base.files import ensure_private_directory, write_atomic
from banger.base.problem import Code, Outcome, Problem, bad_request

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.serialization.ssh import SSHPublicKeyTypes

_STANDARD_PORT = 22


class KeyPair(NamedTuple):
    """`private` in OpenSSH's own format; `public` is one line `ssh-ed25519 AAAA… comment`, no newline."""

    private: bytes
    public: str


def make_key_pair(comment: str) -> KeyPair:
    """A fresh ed25519 key without a passphrase. Takes about a millisecond after the first."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    _check_word(comment)
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    return KeyPair(private, _render_public(key.public_key(), comment))


def ensure_owner_key(path: Path, comment: str) -> KeyPair:
    """The owner's key pair at `path` and `path.pub`; made when there is none. Blocking.

    The directory must be, or becomes, private. A missing `.pub` is written anew from the private key.
    Raises `unauthorized` when others can read the key, `operation_failed` when it is none.
    """
    ensure_private_directory(path.parent)
    public_path = path.with_name(path.name + ".pub")
    if not path.exists():
        _create_once(path, make_key_pair(comment).private)
    _check_private(path)
    private = path.read_bytes()
    if public_path.exists():
        return KeyPair(private, public_path.read_text("ascii").strip())
    public = _read_public(path, private, comment)
    write_atomic(public_path, public.encode("ascii") + b"\n", mode=0o644)
    return KeyPair(private, public)


def render_known_host(addresses: tuple[str, ...], public: str, *, port: int = _STANDARD_PORT) -> str:
    """One line for known_hosts (sshd(8)): all names and addresses of one guest, and its key, with newline."""
    kind, key, *_ = public.split(" ")
    for address in addresses:
        _check_word(address)
    names = addresses if port == _STANDARD_PORT else tuple(f"[{address}]:{port}" for address in addresses)
    return f"{','.join(names)} {kind} {key}\n"


def _create_once(path: Path, private: bytes) -> None:
    """Links the written file into place, which fails when another thread or process was first: then its key counts."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.new")
    write_atomic(temporary, private, mode=0o600)
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        temporary.unlink()


def _check_private(path: Path) -> None:
    state = path.stat()
    if state.st_mode & 0o077 or state.st_uid != os.getuid():
        raise Problem(
            Code.UNAUTHORIZED,
            f"{path} is not a private file of yours",
            hint=f"chown $USER {path} && chmod 600 {path}",
            outcome=Outcome.NOT_STARTED,
        )


def _read_public(path: Path, private: bytes, comment: str) -> str:
    from cryptography.hazmat.primitives import serialization

    try:
        key = serialization.load_ssh_private_key(private, password=None)
    except (ValueError, TypeError) as error:
        raise Problem(
            Code.OPERATION_FAILED,
            f"{path} is not an SSH key without a passphrase",
            hint=f"mv {path} {path}.old",
            outcome=Outcome.NOT_STARTED,
        ) from error
    return _render_public(key.public_key(), comment)


def _render_public(key: "SSHPublicKeyTypes", comment: str) -> str:
    from cryptography.hazmat.primitives.serialization import ssh

    return ssh.serialize_ssh_public_key(key).decode("ascii") + f" {comment}"


def _check_word(text: str) -> None:
    if not text or any(c.isspace() or not c.isprintable() or c in "," for c in text):
        raise bad_request(f"{text!r} cannot stand in an SSH key file")
