"""A workspace: a repository of the host's as it was brought into a VM, and the pure rules about it."""

import re
from collections.abc import Iterable
from typing import Literal, NamedTuple

import msgspec

from banger.base.problem import bad_request

WorkspaceMode = Literal["shallow", "full"]

GUEST_HOME = "/root"
_NAME_MAX = 100
_BRANCH_MAX = 200
_BAD_IN_BRANCH = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|\.lock(/|$)|(^|/)\.|^-|^/|/$|\.$|^@$")
_HOST = r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]"
_SCP_LIKE = re.compile(rf"(?:[^@/:\s]+@)?({_HOST}):((?!//|:)\S+)")
_WITH_SCHEME = re.compile(
    rf"(https?|ssh|git|git\+ssh|ssh\+git)://(?:[^/?#]*@)?((?:{_HOST})(?::\d+)?)(/[^?#\s]*)?(?:[?#].*)?"
)
_SECRET_NAMES = re.compile(
    r"\.env(\..+)?|\.envrc|\.netrc|\.npmrc|\.pypirc|id_(rsa|ed25519|ecdsa|dsa)|.*\.(pem|key|p12|pfx|kdbx)|"
    r"credentials(\.json)?|secrets?\.(ya?ml|json|toml|env)|\.htpasswd|.*\.keystore",
    re.IGNORECASE,
)
_OBJECT_ID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


class Workspace(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the store, at most one for each VM. `subdirectory` is where in the repository work begins;
    `environment` is what finds the tools in the guest.

    `base_commit` is the host's commit that was brought, empty where there was none; `overlay_digest` names all that
    was brought, `base_tree` is the same as the guest's git would write it. `depth`, `untracked`, `include`,
    `begins_at` and `chosen_branch` are what its owner asked for, so that it can be asked for again.
    """

    vm_id: str
    host_root: str
    guest_path: str
    mode: WorkspaceMode = "shallow"
    subdirectory: str = ""
    branch: str = ""
    chosen_branch: str = ""
    head_commit: str = ""
    base_commit: str = ""
    base_tree: str = ""
    overlay_digest: str = ""
    depth: int = 1
    untracked: bool = False
    include: tuple[str, ...] = ()
    begins_at: str = ""
    read_only: bool = False
    prepared_at: str = ""
    environment: dict[str, str] = {}

    @property
    def directory(self) -> str:
        """Where commands begin."""
        return f"{self.guest_path}/{self.subdirectory}" if self.subdirectory else self.guest_path


class Wanted(NamedTuple):
    """What of a repository is to go, as its owner asked for it. `include` are paths below its root; `commit` is where
    the guest's branch begins, HEAD when None."""

    mode: WorkspaceMode = "shallow"
    depth: int = 1
    untracked: bool = False
    include: tuple[str, ...] = ()
    branch: str | None = None
    commit: str | None = None


def pick_guest_path(directory_name: str, untrusted_path: str | None) -> str:
    """Where the repository goes. Raises `bad_request` for what is no place of its own."""
    if untrusted_path is None:
        plain = "".join(
            c if c.isprintable() and c != "/" and not c.isspace() else "-" for c in directory_name
        )
        plain = plain.encode("ascii", "replace").decode().replace("?", "-")[:_NAME_MAX].lstrip(".-")
        return f"{GUEST_HOME}/{plain or 'workspace'}"
    path = untrusted_path.rstrip("/")
    parts = path.split("/")[1:]
    if untrusted_path.startswith("/") and len(parts) < 2:
        raise bad_request(
            f"{untrusted_path!r} is the guest's own directory", hint="--guest-path /root/project"
        )
    if not path.startswith("/") or not all(parts) or {".", ".."} & set(parts) or not path.isprintable():
        raise bad_request(
            f"{untrusted_path!r} is not an absolute path in the guest", hint="--guest-path /root/project"
        )
    if parts[0] in ("proc", "sys", "dev"):
        raise bad_request(
            f"{untrusted_path!r} is the guest's own directory", hint="--guest-path /root/project"
        )
    return path


def validate_branch(untrusted_name: str) -> str:
    """A name that git-check-ref-format(1) allows. Raises `bad_request`."""
    if not untrusted_name or len(untrusted_name) > _BRANCH_MAX or _BAD_IN_BRANCH.search(untrusted_name):
        raise bad_request(f"{untrusted_name[:80]!r} is not a branch's name", hint="--branch my-work")
    return untrusted_name


def strip_url(url: str) -> str | None:
    """A remote's address without who and with what password; None for one that means nothing in a guest (a path of
    the host) or that cannot be told to be free of secrets."""
    if found := _WITH_SCHEME.fullmatch(url.strip()):
        scheme, host, path = found.groups()
        return f"{scheme}://{'git@' if 'ssh' in scheme else ''}{host}{path or ''}"
    if "://" not in url and (found := _SCP_LIKE.fullmatch(url.strip())):
        return f"git@{found[1]}:{found[2]}"
    return None


def looks_secret(path: str) -> bool:
    """Whether a file is named as keys and passwords are."""
    return _SECRET_NAMES.fullmatch(path.rpartition("/")[2]) is not None


def is_object_id(word: str) -> bool:
    """Whether git could have written it: what a guest says is checked before git on the host is told it."""
    return _OBJECT_ID.fullmatch(word) is not None


def list_some(names: Iterable[str], most: int = 5) -> str:
    """`a, b and 3 more`."""
    every = list(names)
    shown = ", ".join(every[:most])
    return f"{shown} and {len(every) - most} more" if len(every) > most else shown
