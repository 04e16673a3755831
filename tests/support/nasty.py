"""The corpus of nasty repositories: each is something that a tool around git has got wrong before."""

import os

from tests.support.odd_places import (
    make_borrowing,
    make_detached,
    make_grafted,
    make_guarded,
    make_nested,
    make_packed,
    make_shallow,
    make_with_submodule,
    make_worktree,
)
from tests.support.repositories import Case, Directory, Link, Move, Remove, Step, Write, commit, git

_LINES = b"".join(b"line %d\n" % number for number in range(40))
_BINARY = bytes(range(256)) * 8
_POINTER = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
)
_ODD_NAMES = (
    b"a name with spaces", b"new\nline", b"tab\there", b'double"quote', b"single'quote", b"back\\slash", b"-rf", b"--help",
    b"-", b"~", b"$HOME", b"`id`", b"$(id)", b";id", b"|id", b"&", b"*", b"?", b"[a]", b"#hash", b"!bang", b"%s%n", b":colon",
    b":(exclude)x", b"a => b", b"{a => b}", b"a -> b", b" leading", b"trailing ", b"trailing.", b"...", b"\xff\xfe\xfd",
    b"\xc3\xa4\xcc\x88", b"\xe2\x80\xae\xe2\x80\x8b", b"\x01\x1b[31mred\x7f", b"con", b"aux.txt", b"nul", b"x" * 255,
    b"deep/" * 60 + b"file", b"diff --git a b", b"dev/null", b"\r", b"trailing\n", b"a/-x", b"a/ ", b"CAPS", b"caps",
)  # fmt: skip


def _identify(name: bytes) -> bytes:
    return b"content of " + name[:40] + b"\n"


def _shuffle(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """Half of it committed, half not."""
    middle = len(steps) // 2
    return *steps[:middle], *commit("half"), *steps[middle:]


_PLAIN = (Write(b"README", _LINES), Write(b"src/main.c", b"int main(void) { return 0; }\n"))

CORPUS: tuple[Case, ...] = (
    Case("nothing changes", _PLAIN),
    Case("an ordinary change", _PLAIN, change=(Write(b"README", _LINES + b"more\n"), *commit(), Write(b"new", b"n\n"))),
    Case(
        "odd names",
        tuple(Write(name, _identify(name)) for name in _ODD_NAMES[::2]),
        overlay=tuple(Write(name, b"host\n") for name in _ODD_NAMES[::4]),
        change=_shuffle(
            (
                *(Write(name, b"guest: " + _identify(name)) for name in _ODD_NAMES),
                *(Remove(name) for name in _ODD_NAMES[::7]),
            )
        ),
    ),
    Case(
        "odd names move",
        tuple(Write(name, _LINES + name) for name in _ODD_NAMES),
        change=_shuffle(tuple(Move(name, b"moved/" + name[:250]) for name in _ODD_NAMES[::2])),
    ),
    Case(
        "modes",
        (Write(b"a", b"a\n", 0o755), Write(b"b", b"b\n"), Write(b"c", b"c\n")),
        overlay=(Write(b"c", b"c\n", 0o755),),
        change=(
            Write(b"a", b"a\n", 0o644),
            *commit(),
            Write(b"b", b"B\n", 0o755),
            Write(b"c", b"c\n", 0o644),
            Write(b"d", b"", 0o755),
        ),
    ),
    Case(
        "links",
        (
            Write(b"file", b"f\n"),
            Link(b"to-file", b"file"),
            Link(b"dangling", b"nowhere"),
            Link(b"absolute", b"/etc/passwd"),
            Link(b"outside", b"../../../outside"),
            Link(b"loop", b"loop"),
            Link(b"a", b"b"),
            Link(b"b", b"a"),
            Link(b"odd", b"a\nb \xff"),
        ),
        overlay=(Link(b"to-file", b"other"),),
        change=_shuffle(
            (
                Link(b"dangling", b"still nowhere"),
                Link(b"new", b"/"),
                Write(b"loop", b"no loop\n"),
                Remove(b"a"),
                Link(b"file", b"absolute"),
                Link(b"long", b"x/" * 500),
            )
        ),
    ),
    Case(
        "one kind becomes another",
        (
            Write(b"file-dir", b"1\n"),
            Write(b"dir-file/a", b"2\n"),
            Write(b"dir-file/b/c", b"2\n"),
            Link(b"link-dir", b"dir-file"),
            Write(b"dir-link/x", b"3\n"),
            Link(b"link-file", b"file-dir"),
            Write(b"file-link", _LINES),
            Write(b"swap1", b"one\n"),
            Write(b"swap2", _LINES),
        ),
        overlay=(Write(b"dir-file/a", b"host\n"),),
        change=_shuffle(
            (
                Write(b"file-dir/x/y", b"1\n"),
                Write(b"dir-file", b"2\n"),
                Write(b"link-dir/z", b"z\n"),
                Link(b"dir-link", b"file-dir/x"),
                Write(b"link-file", b"real\n"),
                Link(b"file-link", b"swap1"),
                Move(b"swap1", b"swap3"),
                Move(b"swap2", b"swap1"),
                Move(b"swap3", b"swap2"),
            )
        ),
    ),
    Case(
        "renames and deletions",
        tuple(Write(b"d/%d" % number, _LINES + b"%d\n" % number) for number in range(12)),
        overlay=(Move(b"d/1", b"e/1"), Remove(b"d/2"), Write(b"d/3", _LINES)),
        change=_shuffle(
            (
                Move(b"d/4", b"f/4"),
                Move(b"d/5", b"h/5/5"),
                Move(b"e/1", b"d/1"),
                Remove(b"d/6"),
                Move(b"d/7", b"d/6"),
                Write(b"d/2", b"again\n"),
                Move(b"d/8", b"g"),
                Remove(b"d/9"),
                Write(b"d/9/new", _LINES),
            )
        ),
    ),
    Case(
        "binary files",
        (Write(b"b", _BINARY), Write(b"same", _BINARY), Write(b"nul", b"text\0text\n")),
        overlay=(Write(b"same", _BINARY[::-1]),),
        change=(
            Write(b"b", _BINARY + b"!"),
            Write(b"new", os.urandom(20000)),
            *commit(),
            Remove(b"nul"),
            Write(b"same", b""),
            Write(b"text-now", _BINARY),
        ),
    ),
    Case(
        "line ends",
        (
            Write(b".gitattributes", b"*.txt text\n*.crlf text eol=crlf\n*.lf text eol=lf\n*.bin -text\n* text=auto\n"),
            Write(b"a.txt", b"one\ntwo\n"),
            Write(b"a.crlf", b"one\r\ntwo\r\n"),
            Write(b"a.lf", b"one\ntwo\n"),
            Write(b"a.bin", b"one\r\ntwo\n"),
            Write(b"none", b"one\ntwo"),
        ),
        overlay=(Write(b"a.crlf", b"one\r\nHOST\r\n"),),
        change=(
            Write(b"a.crlf", b"one\r\nHOST\r\nguest\r\n"),
            *commit(),
            Write(b"a.bin", b"one\r\r\ntwo\r\n\r"),
            Write(b"new.crlf", b"n\r\n"),
            Write(b"none", b"one\ntwo\n"),
        ),
    ),
    Case(
        "attributes",
        (
            Write(
                b".gitattributes",
                b"*.utf16 text working-tree-encoding=UTF-16LE\n*.id ident\n*.sub export-subst\n*.f filter=absent\n"
                b"*.d diff=absent merge=absent\n*.nodiff -diff\n[attr]mine text\n*.m mine\n",
            ),
            Write(b"a.utf16", "hällo\nwelt\n".encode("utf-16-le")),
            Write(b"a.id", b"$Id$\n"),
            Write(b"a.sub", b"$Format:%H$\n"),
            Write(b"a.f", b"filtered\n"),
            Write(b"a.d", b"driver\n"),
            Write(b"a.nodiff", _LINES),
        ),
        change=(
            Write(b"a.utf16", "hällo\nwelt\nund mehr\n".encode("utf-16-le")),
            Write(b"a.f", b"filtered twice\n"),
            Write(b"a.nodiff", _LINES * 2),
            *commit(),
            Write(b"a.d", b"driver changed\n"),
            Write(b"sub/.gitattributes", b"* -text\n"),
            Write(b"sub/x", b"\r\n"),
        ),
    ),
    Case(
        "large file pointers",
        (Write(b".gitattributes", b"*.big filter=lfs diff=lfs merge=lfs -text\n"), Write(b"a.big", _POINTER)),
        change=(Write(b"b.big", _POINTER.replace(b"4d7a", b"0000")), *commit(), Remove(b"a.big")),
    ),
    Case(
        "empty files and directories",
        (Write(b"empty"), Write(b"d/empty"), Directory(b"really/empty")),
        overlay=(Write(b"was-not-empty"), Directory(b"host")),
        change=(Write(b"empty", b"no more\n"), Write(b"e2"), *commit(), Remove(b"d/empty"), Directory(b"guest/only")),
    ),
    Case(
        "no final newline and one huge line",
        (Write(b"a", b"one\ntwo"), Write(b"huge", b"x" * 300_000), Write(b"b", b"b")),
        change=(Write(b"a", b"one\ntwo\n"), Write(b"huge", b"x" * 150_000 + b"y" * 150_000), *commit(), Write(b"b", b"c")),
    ),
    Case(
        "names that mean something to git",
        (
            Write(b"HEAD", b"ref: refs/heads/main\n"),
            Write(b"refs/heads/main", b"0" * 40 + b"\n"),
            Write(b"objects/info/alternates", b"/etc\n"),
            Write(b"config", b"[core]\n\tfsmonitor = false\n"),
            Write(b".gitmodules", b'[submodule "x"]\n\tpath = x\n\turl = https://example.com/x\n'),
            Write(b"hooks/pre-commit", b"#!/bin/sh\nexit 1\n", 0o755),
            Write(b".gitX", b"x\n"),
            Write(b"git~2", b"x\n"),
            Write(b".mailmap", b"A <a@example.com> <b@example.com>\n"),
        ),
        change=(
            Write(b"HEAD", b"ref: refs/heads/other\n"),
            Write(b"ORIG_HEAD", b"x\n"),
            Write(b".gitignore", b"ignored\n"),
            Write(b"ignored", b"i\n"),
            *commit(),
            Write(b".gitmodules.bak", b"x\n"),
            Write(b"a/.gitmodules", b"junk [\n"),
        ),
    ),
    Case(
        "ignored and untracked",
        (Write(b".gitignore", b"*.log\n/build/\n.env\n!keep.log\n"), Write(b"a", b"a\n"), Write(b"keep.log", b"k\n")),
        overlay=(Write(b".env", b"SECRET=1\n"), Write(b"x.log", b"x\n"), Write(b"untracked", b"u\n")),
        change=(
            Write(b"build/out", b"o\n"),
            Write(b"guest.log", b"g\n"),
            Write(b".env", b"SECRET=2\n"),
            Write(b"new", b"n\n"),
            Write(b"forced.log", b"f\n"),
            git("add", "-f", "forced.log"),
        ),
    ),
    Case(
        "the index says other things",
        (Write(b"a", b"a\n"), Write(b"b", b"b\n"), Write(b"c", b"c\n")),
        change=(
            Write(b"a", b"staged\n"),
            git("add", "a"),
            Write(b"a", b"then changed\n"),
            git("rm", "--quiet", "--cached", "b"),
            Write(b"n", b"new\n"),
            git("add", "--intent-to-add", "n"),
            Write(b"m", b"staged, then gone\n"),
            git("add", "m"),
            Remove(b"m"),
            git("mv", "c", "d"),
        ),
    ),
    Case(
        "history is rewritten",
        _PLAIN,
        change=(
            Write(b"README", b"amended\n"),
            git("commit", "--quiet", "-a", "--amend", "-m", "amended"),
            git("checkout", "--quiet", "-b", "topic/one"),
            Write(b"topic", b"t\n"),
            *commit("on a topic"),
            git("checkout", "--quiet", "--orphan", "fresh"),
            *commit("an orphan"),
        ),
    ),
    Case(
        "a merge",
        _PLAIN,
        change=(
            git("checkout", "--quiet", "-b", "left"),
            Write(b"left", b"l\n"),
            *commit("left"),
            git("checkout", "--quiet", "-b", "right", "HEAD~1"),
            Write(b"right", b"r\n"),
            *commit("right"),
            git("merge", "--quiet", "--no-edit", "left"),
        ),
    ),
    Case("unborn", (Write(b"a", b"a\n"),), commits=False, change=(Write(b"b", b"b\n"), *commit("first"), Write(b"c", b"c\n"))),
    Case("unborn stays so", (Write(b"a", b"a\n"),), commits=False, change=(Write(b"b", b"b\n"),)),
    Case("detached", _PLAIN, make=make_detached, change=(Write(b"b", b"b\n"), *commit(), Write(b"c", b"c\n"))),
    Case("a linked worktree", _PLAIN, make=make_worktree, change=(Write(b"b", b"b\n"), *commit(), Write(b"c", b"c\n"))),
    Case("packed refs", _PLAIN, make=make_packed, change=(Write(b"b", b"b\n"), *commit())),
    Case("borrowed objects", _PLAIN, make=make_borrowing, change=(Write(b"b", b"b\n"), *commit())),
    Case("shallow itself", _PLAIN, make=make_shallow, change=(Write(b"b", b"b\n"), *commit(), Write(b"counter", b"9\n"))),
    Case("replaced commits", _PLAIN, make=make_grafted, change=(Write(b"b", b"b\n"), *commit())),
    Case("sha256", _PLAIN, object_format="sha256", change=(Write(b"b", _BINARY), *commit(), Write(b"README", b"r\n"))),
    Case("a nested repository", _PLAIN, make=make_nested, change=(Write(b"b", b"b\n"), git("init", "--quiet", "more"))),
    Case(
        "a submodule",
        _PLAIN,
        make=make_with_submodule,
        change=(Write(b"b", b"b\n"), *commit(), Write(b"README", b"changed beside it\n")),
    ),
    Case(
        "hooks and programs in the configuration",
        (*_PLAIN, Write(b".gitattributes", b"*.t filter=trip diff=trip\n")),
        make=make_guarded,
        overlay=(Write(b"README", b"host\n"),),
        change=(Write(b"b", b"b\n"), *commit(), Write(b"c", b"c\n")),
    ),
)  # fmt: skip

SUBMODULE = "a submodule"  # refused in shallow mode

UNCOMMITTABLE: tuple[Step, ...] = (
    Write(b".git ", b"x\n"),
    Write(b".GIT.", b"x\n"),
    Write(b"git~1", b"x\n"),
    Write(b".g\xe2\x80\x8cit", b"x\n"),
    Write(b"d/.git...", b"x\n"),
)
"""Files that git refuses to keep, since they are `.git` for another system."""


def find_case(name: str) -> Case:
    return next(case for case in CORPUS if case.name == name)
