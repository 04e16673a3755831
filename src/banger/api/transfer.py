"""Methods that copy files into guests and out of them: streams of bytes or of tar (docs/reference/rpc.md).

A path in a guest may be relative to the user's home. A trailing `/` or `/.` says that it is a directory.
"""

from typing import Annotated, Literal

from msgspec import Meta

from banger.api.method import Effect, Kind, Nothing, Request, VmReference, declare, field

GuestPath = Annotated[Annotated[str, Meta(max_length=4095)], field("path in the guest", metavar="PATH")]
GuestUser = Annotated[
    str | None,
    field(
        "user name or uid[:gid] in the guest: whose home relative paths begin at, and whose the files become",
        short="u",
    ),
]
FileMode = Annotated[int, Meta(ge=0, le=0o777)]


@declare("vm.put", effect=Effect.CHANGE, kind=Kind.STREAM)
class VmPut(Request[Nothing]):
    """Copies into a running VM. The caller's stdin is a tar stream, or a file's bytes.

    `what` is what will come: `file` (a tar stream with one file or link), `tree` (one with one directory), or `any`
    (a tar stream if the path is a directory, a file's bytes otherwise). The stream's first line answers with
    `directory`, where the entries go, and `name`, which the one entry at the top must have, or null: it keeps its own,
    or there may be several. For a file's bytes it answers with `file`.
    """

    vm: VmReference
    path: GuestPath
    what: Annotated[Literal["file", "tree", "any"], field("file, tree or any", hidden=True)]
    into: Annotated[bool, field("the path must be a directory", hidden=True)] = False
    parents: Annotated[bool, field("make the directories above it as well", short="p")] = False
    archive: Annotated[bool, field("keep the files' owners, as numbers", short="a")] = False
    user: GuestUser = None
    mode: Annotated[FileMode, field("mode of a file that comes as bytes", hidden=True)] = 0o644


@declare("vm.get", kind=Kind.STREAM)
class VmGet(Request[Nothing]):
    """Copies out of a running VM. The caller's stdout is a tar stream, or a file's bytes if it is to be plain.

    The stream's first line answers with `what` (`file`, `directory`, `link`, or `bytes`), its `name`, its `size_bytes`
    if that is known, and `top`: whether everything is below an entry of that name.
    """

    vm: VmReference
    path: GuestPath
    follow: Annotated[bool, field("if it is a symbolic link, copy what it leads to", short="L")] = False
    plain: Annotated[bool, field("a file's bytes instead of a tar stream", hidden=True)] = False
    user: GuestUser = None
