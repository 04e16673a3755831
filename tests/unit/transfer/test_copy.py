"""`banger vm cp` from its words to the files, by the rules of `docker cp`."""

import asyncio
import io
import os
import signal
import subprocess
import tarfile
from pathlib import Path

import pytest


def fill(tree):
    """One of each kind that is copied."""
    (tree / "below").mkdir(parents=True)
    (tree / "file").write_bytes(b"content")
    (tree / "file").chmod(0o640)
    (tree / "below" / "program").write_bytes(b"#!")
    (tree / "below" / "program").chmod(0o755)
    os.link(tree / "file", tree / "again")
    (tree / "link").symlink_to("../outside")
    (tree / "odd\nname ü").write_bytes(b"")
    (tree / os.fsdecode(b"\xff")).write_bytes(b"bytes")
    os.utime(tree / "file", (1000, 1000))


def describe(tree):
    found = {}
    for path in sorted(tree.rglob("*")):
        name = str(path.relative_to(tree))
        if path.is_symlink():
            found[name] = ("link", os.readlink(path))
        elif path.is_dir():
            found[name] = "directory"
        else:
            state = path.stat()
            found[name] = (state.st_mode & 0o777, state.st_nlink, path.read_bytes())
    return found


# A file


@pytest.mark.parametrize(
    ("destination", "lands"),
    [
        ("web:", "root/one"),
        ("web:other", "root/other"),
        ("web:there", "root/there/one"),
        ("web:there/", "root/there/one"),
        ("web:there/name", "root/there/name"),
        ("web:/srv/x", "srv/x"),
        ("web:~/there", "root/there/one"),
        ("web:there/../up", "root/up"),
        ("web:taken", "root/taken"),
    ],
)
async def test_a_file_goes_where_docker_would_put_it(place, destination, lands):
    (place.home / "there").mkdir()
    (place.guest / "srv").mkdir()
    (place.home / "taken").write_bytes(b"old")
    (place.host / "one").write_bytes(b"new")
    (place.host / "one").chmod(0o750)
    done = await place.cp("one", destination)
    assert (done.status, done.out) == (0, b""), done.err
    assert done.err == f"one → {destination}: 1 file, 3 B\n"
    assert (place.guest / lands).read_bytes() == b"new"
    assert (place.guest / lands).stat().st_mode & 0o777 == 0o750


@pytest.mark.parametrize(
    ("destination", "lands"),
    [(".", "one"), ("other", "other"), ("there", "there/one"), ("there/", "there/one"), ("taken", "taken")],
)
async def test_a_file_comes_where_docker_would_put_it(place, destination, lands):
    (place.host / "there").mkdir()
    (place.host / "taken").write_bytes(b"old")
    (place.home / "one").write_bytes(b"new")
    done = await place.cp("web:one", destination)
    assert done.status == 0, done.err
    assert (place.host / lands).read_bytes() == b"new"


async def test_several_files_go_into_a_directory_that_is_there(place):
    for name in ("one", "two"):
        (place.host / name).write_text(name)
    done = await place.cp("one", "two", "web:there")
    assert (done.status, "there is no directory web:there" in done.err) == (66, True)
    (place.home / "there").mkdir()
    assert (await place.cp("-q", "one", "two", "web:there")) == (0, b"", "")
    assert sorted(os.listdir(place.home / "there")) == ["one", "two"]
    assert (await place.cp("-q", "web:there/one", "web:there/two", ".")).status == 0


async def test_a_file_with_holes_keeps_them(place):
    with (place.home / "disk").open("wb") as file:
        file.truncate(64 << 20)
        file.seek(32 << 20)
        file.write(b"data")
    with (place.host / "image").open("wb") as file:
        file.truncate(64 << 20)
        file.seek(32 << 20)
        file.write(b"data")
    done = await place.cp("image", "web:copy")
    assert done.status == 0, done.err
    assert (place.home / "copy").read_bytes() == (place.host / "image").read_bytes()


# A directory


@pytest.mark.parametrize(
    ("source", "destination", "lands"),
    [
        ("tree", "web:new", "root/new"),
        ("tree", "web:there", "root/there/tree"),
        ("tree/", "web:there", "root/there/tree"),
        ("tree/.", "web:there", "root/there"),
        ("tree/.", "web:new", "root/new"),
        ("tree", "web:new/", "root/new"),
        ("tree", "web:", "root/tree"),
    ],
)
async def test_a_directory_goes_where_docker_would_put_it(place, source, destination, lands):
    fill(place.host / "tree")
    (place.home / "there").mkdir()
    done = await place.cp(source, destination)
    assert done.status == 0, done.err
    assert describe(place.guest / lands) == describe(place.host / "tree")


@pytest.mark.parametrize(
    ("source", "destination", "lands"),
    [
        ("web:tree", "new", "new"),
        ("web:tree", "there", "there/tree"),
        ("web:tree/", ".", "tree"),
        ("web:tree/.", "there", "there"),
        ("web:tree/.", "new", "new"),
        ("web:/root/tree", "new/", "new"),
    ],
)
async def test_a_directory_comes_where_docker_would_put_it(place, source, destination, lands):
    fill(place.home / "tree")
    (place.host / "there").mkdir()
    done = await place.cp(source, destination)
    assert done.status == 0, done.err
    assert describe(place.host / lands) == describe(place.home / "tree")


async def test_the_whole_guest_comes_as_its_contents(place):
    (place.home / "file").write_text("x")
    assert (await place.cp("web:/", "all")).status == 0
    assert (place.host / "all/root/file").read_text() == "x"


async def test_what_is_there_is_merged_and_not_emptied(place):
    (place.host / "tree").mkdir()
    (place.host / "tree/new").write_text("new")
    (place.home / "tree").mkdir()
    (place.home / "tree/old").write_text("old")
    assert (await place.cp("tree", "web:")).status == 0
    assert sorted(os.listdir(place.home / "tree")) == ["new", "old"]
    assert (await place.cp("web:tree", ".")).status == 0
    assert sorted(os.listdir(place.host / "tree")) == ["new", "old"]


async def test_what_cannot_be_copied_is_left_out_and_told(place):
    tree = place.host / "tree"
    tree.mkdir()
    os.mkfifo(tree / "pipe\x1b[2J")
    done = await place.cp("tree", "web:")
    assert done.status == 0
    assert "banger: warning: left out 'tree/pipe\\x1b[2J': a FIFO" in done.err
    os.mkfifo(place.home / "tree/pipe")
    done = await place.cp("web:tree", "back")
    assert (done.status, "left out" in done.err) == (0, True)
    assert os.listdir(place.host / "back") == []


# Links


async def test_a_link_stays_one_unless_it_is_to_be_followed(place):
    for top in (place.host, place.home):
        (top / "real").write_text("content")
        (top / "link").symlink_to("real")
    assert (await place.cp("link", "web:as-link")).status == 0
    assert os.readlink(place.home / "as-link") == "real"
    assert (await place.cp("-L", "link", "web:as-file")).status == 0
    assert not (place.home / "as-file").is_symlink()
    assert (place.home / "as-file").read_text() == "content"
    assert (await place.cp("web:link", "as-link")).status == 0
    assert os.readlink(place.host / "as-link") == "real"
    assert (await place.cp("-L", "web:link", "as-file")).status == 0
    assert (place.host / "as-file").read_text() == "content"


async def test_a_link_to_a_directory_is_followed_with_a_slash(place):
    for top in (place.host, place.home):
        (top / "real").mkdir()
        (top / "real/file").write_text("content")
        (top / "link").symlink_to("real")
    assert (await place.cp("link/", "web:copy")).status == 0
    assert (place.home / "copy/file").read_text() == "content"
    assert (await place.cp("web:link/", "copy")).status == 0
    assert (place.host / "copy/file").read_text() == "content"
    assert (await place.cp("web:link/.", "contents")).status == 0
    assert (place.host / "contents/file").read_text() == "content"


async def test_a_file_named_by_a_link_is_replaced_and_not_the_link(place):
    for top in (place.host, place.home):
        (top / "real").write_text("old")
        (top / "link").symlink_to("real")
        (top / "new").write_text("new")
    assert (await place.cp("new", "web:link")).status == 0
    assert ((place.home / "real").read_text(), (place.home / "link").is_symlink()) == ("new", True)
    assert (await place.cp("web:new", "link")).status == 0
    assert ((place.host / "real").read_text(), (place.host / "link").is_symlink()) == ("new", True)


# Stdin and stdout


async def test_stdin_becomes_a_file(place):
    data = os.urandom(1 << 20)
    done = await place.cp("-", "web:made", stdin=data)
    assert done.status == 0, done.err
    assert (place.home / "made").read_bytes() == data
    assert (await place.cp("-", "web:empty", stdin=b"")).status == 0
    assert (place.home / "empty").read_bytes() == b""


async def test_stdin_is_a_tar_stream_for_a_directory(place):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        entry = tarfile.TarInfo("in/file")
        entry.size = 3
        archive.addfile(entry, io.BytesIO(b"abc"))
    assert (await place.cp("-", "web:", stdin=stream.getvalue())).status == 0
    assert (place.home / "in/file").read_bytes() == b"abc"


async def test_stdout_gets_a_files_bytes_or_a_tar_stream(place):
    data = os.urandom(1 << 20)
    fill(place.home / "tree")
    (place.home / "file").write_bytes(data)
    (place.home / "link").symlink_to("file")
    assert await place.cp("web:file", "-") == (0, data, "")
    assert (await place.cp("web:link", "-")).out == data
    done = await place.cp("web:tree", "-")
    (place.host / "out").mkdir()
    subprocess.run(("tar", "-xC", place.host / "out"), input=done.out, check=True)
    assert describe(place.host / "out/tree") == describe(place.home / "tree")


# What is wrong


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["one"], 64, "a source and a destination are needed"),
        (["one", "two"], 64, "none of the names is in a VM"),
        (["web:one", "web:two"], 64, "one side must be on this host"),
        (["web:one", "one", "two"], 64, "the sources are on both sides"),
        (["-", "one", "web:"], 64, "- is the only source"),
        (["web:one", "web:two", "-"], 64, "only one source can go to -"),
        (["nothing", "web:"], 66, "there is no file nothing on this host"),
        (["one/", "web:"], 66, "one/ is no directory on this host"),
        (["/dev/null", "web:"], 64, "/dev/null is neither a file, a directory nor a link"),
        (["one", "ghost:"], 66, "there is no VM 'ghost'"),
        (["one", "off:"], 69, "off is stopped"),
        (["one", "mute:"], 69, "the agent in mute is silent"),
        (["one", "web:no/where"], 66, "there is no directory /root/no in the guest"),
        (["one", "web:nowhere/"], 66, "there is no directory web:nowhere/"),
        (["one", "web:file/"], 73, "web:file/ is a file, not a directory"),
        (["one", "web:file/below"], None, "web:file/below"),
        (["one", "web:loose"], 66, "web:loose is a symbolic link to nothing"),
        (["tree", "web:file"], 73, "web:file is a file, not a directory"),
        (["-u", "nobody-here", "one", "web:"], 64, "the guest has no user 'nobody-here'"),
        (["web:nothing", "."], 66, "there is no file web:nothing"),
        (["web:file/", "."], 66, "web:file/ is no directory"),
        (["web:pipe", "."], 64, "web:pipe is neither a file, a directory nor a link"),
        (["web:file", "no/where"], 66, "no on this host"),
        (["web:file", "nowhere/"], 66, "there is no directory nowhere/ on this host"),
        (["web:file", "one/"], 73, "one/ is a file, not a directory"),
        (["web:dir", "one"], 73, "one is a file, not a directory"),
        (["web:file", "loose"], 66, "loose is a symbolic link to nothing"),
        (["web:file", "/dev/null"], 64, "/dev/null is no regular file"),
        (["one", os.fsdecode(b"web:\xff")], 64, "is not UTF-8"),
    ],
)
async def test_what_is_wrong_is_said_in_one_line_and_changes_nothing(place, words, status, message):
    (place.host / "one").write_text("1")
    (place.host / "tree").mkdir()
    (place.host / "loose").symlink_to("nothing")
    (place.home / "file").write_text("f")
    (place.home / "dir").mkdir()
    (place.home / "loose").symlink_to("nothing")
    os.mkfifo(place.home / "pipe")
    host, home = sorted(os.listdir(place.host)), sorted(os.listdir(place.home))
    done = await place.cp(*words)
    assert message in done.err, done.err
    assert done.status == status or (status is None and done.status != 0), done.err
    assert (sorted(os.listdir(place.host)), sorted(os.listdir(place.home))) == (host, home)
    assert ((place.host / "one").read_text(), (place.home / "file").read_text()) == ("1", "f")


async def test_missing_directories_are_made_when_asked(place):
    (place.host / "one").write_text("1")
    assert (await place.cp("-p", "one", "web:a/b/c")).status == 0
    assert (place.home / "a/b/c").read_text() == "1"
    assert (await place.cp("-p", "one", "web:d/e/")).status == 0
    assert (place.home / "d/e/one").read_text() == "1"


async def test_a_user_has_a_home(place):
    (place.guest / "etc").mkdir()
    (place.guest / "etc/passwd").write_text(
        "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\nbroken\n"
    )
    (place.guest / "home/ann").mkdir(parents=True)
    (place.host / "one").write_text("1")
    for user, name in (("ann", "a"), ("1000", "b"), ("1000:5", "c")):
        done = await place.cp("-u", user, "one", f"web:{name}")
        assert done.status == 0, done.err
        assert (place.guest / "home/ann" / name).read_text() == "1"


async def test_a_copy_is_activity_as_long_as_it_goes_on(place):
    reader, writer = os.pipe()
    async with place.start("-", "web:half", stdin=reader) as process:
        os.close(reader)
        os.write(writer, b"x")
        while not [name for name in os.listdir(place.home) if "half" in name]:
            await asyncio.sleep(0.01)
        assert place.vms.users == 1
        os.close(writer)
        assert await process.wait() == 0
    assert (place.vms.users, place.vms.uses) == (0, 1)


async def test_copying_without_a_terminal_draws_nothing(place):
    (place.home / "big").write_bytes(bytes(4 << 20))
    done = await place.cp("web:big", ".")
    assert done.err == "web:big → .: 1 file, 4 MiB\n"


# The end in the middle


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_an_interrupted_copy_leaves_nothing_in_the_guest(place, number):
    reader, writer = os.pipe()
    async with place.start("-", "web:half", stdin=reader) as process:
        os.close(reader)
        os.write(writer, b"x" * 1000)
        while not [name for name in os.listdir(place.home) if "half" in name]:
            await asyncio.sleep(0.01)
        process.send_signal(number)
        assert await process.wait() in (128 + number, 130)
        os.close(writer)
    async with asyncio.timeout(5):
        while os.listdir(place.home):
            await asyncio.sleep(0.01)


def serve_tar(monkeypatch, pieces, *, hold=False):
    """The guest answers tree_get with these bytes, whatever is asked for; with `hold` it then says no more."""
    from banger.guest import fake
    from banger.guest.frames import Stream
    from banger.guest.methods import Method

    async def tree_get(call):
        call.start()
        for piece in pieces:
            await call.send(piece)
        if hold:
            await asyncio.Event().wait()
        call.channel.post_eof(Stream.STDOUT)
        return b"", lambda: None

    monkeypatch.setattr(fake, "METHODS", {**fake.METHODS, Method.TREE_GET: tree_get})


def make_tar(*entries):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, kind, more in entries:
            entry = tarfile.TarInfo(name)
            entry.type = kind
            if kind == tarfile.REGTYPE:
                entry.size = len(more)
                archive.addfile(entry, io.BytesIO(more))
            else:
                entry.linkname = more
                archive.addfile(entry)
    return stream.getvalue()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_an_interrupted_copy_leaves_the_old_file_on_this_host(place, monkeypatch, number):
    (place.home / "big").write_bytes(bytes(1 << 20))
    (place.host / "big").write_text("old")
    serve_tar(monkeypatch, [make_tar(("big", tarfile.REGTYPE, bytes(1 << 20)))[: 1 << 19]], hold=True)
    async with place.start("web:big", ".") as process:
        while len(os.listdir(place.host)) < 2:
            await asyncio.sleep(0.01)
        process.send_signal(number)
        assert await process.wait() in (128 + number, 130)
    assert os.listdir(place.host) == ["big"]
    assert (place.host / "big").read_text() == "old"


@pytest.mark.parametrize(
    ("asked", "entries"),
    [
        ("tree", [("tree/../../evil", tarfile.REGTYPE, b"x")]),
        ("tree", [("/tmp/evil", tarfile.REGTYPE, b"x")]),
        ("tree", [("evil", tarfile.REGTYPE, b"x")]),
        ("tree", [("tree/link", tarfile.SYMTYPE, ".."), ("tree/link/evil", tarfile.REGTYPE, b"x")]),
        ("tree", [("tree", tarfile.SYMTYPE, ".."), ("tree/evil", tarfile.REGTYPE, b"x")]),
        ("tree", [("tree/stolen", tarfile.LNKTYPE, "../secret")]),
        ("tree", [("tree/stolen", tarfile.LNKTYPE, "secret")]),
        ("file", [("file/evil", tarfile.REGTYPE, b"x")]),
        ("file", [("file", tarfile.DIRTYPE, "")]),
        ("file", [("file", tarfile.REGTYPE, b"x"), ("file", tarfile.REGTYPE, b"y")]),
        ("file", [("secret", tarfile.REGTYPE, b"x")]),
        ("file", [("file", tarfile.LNKTYPE, "secret")]),
    ],
)
async def test_a_hostile_guest_writes_only_where_it_was_asked_to(place, monkeypatch, asked, entries):
    (place.home / "tree").mkdir()
    (place.home / "file").write_text("f")
    (place.host / "into").mkdir()
    (place.host / "secret").write_text("secret")
    serve_tar(monkeypatch, [make_tar(*entries)])
    done = await place.cp(f"web:{asked}", "into")
    assert done.status != 0
    assert "refused" in done.err, done.err
    assert sorted(os.listdir(place.host)) == ["into", "secret"]
    assert (place.host / "secret").read_text() == "secret"
    assert (place.host / "secret").stat().st_nlink == 1
    assert list(place.host.rglob("*evil*")) == []


async def test_a_guest_that_stops_in_the_middle_is_a_failure(place, monkeypatch):
    (place.home / "tree").mkdir()
    whole = make_tar(("tree/one", tarfile.REGTYPE, b"1"), ("tree/two", tarfile.REGTYPE, bytes(5000)))
    serve_tar(monkeypatch, [whole[:3000]])
    done = await place.cp("web:tree", ".")
    assert (done.status, "it is cut short" in done.err) == (71, True)
    assert os.listdir(place.host / "tree") == ["one"]


async def test_a_full_disk_in_the_guest_is_said_and_keeps_the_old_file(place, monkeypatch):
    import errno

    from banger.guest import fake
    from banger.guest.methods import Method

    async def tree_put(call):
        call.start()
        await call.channel.read()
        raise OSError(errno.ENOSPC, "big: No space left on device")

    monkeypatch.setattr(fake, "METHODS", {**fake.METHODS, Method.TREE_PUT: tree_put})
    (place.host / "big").write_bytes(bytes(8 << 20))
    done = await place.cp("big", "web:")
    assert done.status == 74
    assert "web:: no space left on device" in done.err


async def test_a_guest_that_refuses_does_not_wait_for_more_of_stdin(place, monkeypatch):
    """Nobody types on into a copy that has failed."""
    import errno

    from banger.guest import fake
    from banger.guest.methods import Method

    async def file_write(call):
        call.start()
        await call.channel.read()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fake, "METHODS", {**fake.METHODS, Method.FILE_WRITE: file_write})
    reader, writer = os.pipe()
    async with place.start("-", "web:file", stdin=reader) as process:
        os.close(reader)
        os.write(writer, b"the beginning")
        _, err = await asyncio.wait_for(process.communicate(), 20)
        os.close(writer)
    assert (process.returncode, b"web:file: no space left on device" in err) == (74, True)


async def test_a_terminal_gets_a_bar(place, monkeypatch):
    import pty

    data = make_tar(("big", tarfile.REGTYPE, bytes(4 << 20)))
    (place.home / "big").write_bytes(bytes(4 << 20))
    serve_tar(monkeypatch, [data[at : at + 65536] for at in range(0, len(data), 65536)])
    ours, theirs = pty.openpty()
    async with place.start("web:big", ".", stderr=theirs) as process:
        os.close(theirs)
        drawn = b""
        while True:
            try:
                data = await asyncio.to_thread(os.read, ours, 65536)
            except OSError:
                break
            drawn += data
        await process.wait()
    os.close(ours)
    assert process.returncode == 0
    assert "] 100% 4 MiB / 4 MiB" in drawn.decode() or "% " in drawn.decode()
    assert drawn.endswith("web:big → .: 1 file, 4 MiB\r\n".encode())


def test_a_bar_is_as_long_as_what_is_done():
    from banger.cli.commands.copy import render_bar

    assert render_bar(1 << 20, 2 << 20) == "[████████████            ]  50% 1 MiB / 2 MiB"
    assert render_bar(3 << 20, 2 << 20).startswith("[████████████████████████] 100%")
    assert render_bar(5, None) == "5 B"


async def test_a_guest_that_is_silent_is_waited_for_and_then_told(place, monkeypatch):
    monkeypatch.setattr("banger.services.transfer.service._ANSWER_S", 0.2)
    (place.host / "one").write_text("1")
    place.fake.is_silent = True
    for words in (("one", "web:"), ("web:one", ".")):
        done = await place.cp(*words)
        assert (done.status, "the agent in web does not answer" in done.err) == (69, True)


async def test_ends_of_pipes_that_fail_are_told(place):
    (place.home / "one").write_bytes(bytes(1 << 20))
    assert (await place.cp("-", "web:made")).status == 0  # from /dev/null
    with Path(os.devnull).open("wb") as written:
        async with place.start("-", "web:never", stdin=written) as process:
            _, err = await process.communicate()
    assert (process.returncode, b"stdin cannot be read: Bad file descriptor" in err) == (64, True)
    assert sorted(os.listdir(place.home)) == ["made", "one"]
    with Path("/dev/full").open("wb") as full:
        async with place.start("web:one", "-", stdout=full) as process:
            _, err = await process.communicate()
    assert (process.returncode, b"stdout cannot be written: No space left on device" in err) == (74, True)
    async with place.start("web:one", "-") as process:
        process.stdout._transport.close()  # nobody reads
        assert await process.wait() == 141


# A guest that plans ahead


async def test_a_link_out_of_its_directory_is_no_destination(place):
    """One that an earlier copy has brought would lead the next copy to any file of the owner's."""
    (place.host / "here").mkdir()
    (place.host / "mine").write_text("mine")
    (place.host / "home").mkdir()
    (place.home / "out").symlink_to("../mine")
    (place.home / "tree").symlink_to(place.host / "home")
    for name in ("out", "tree"):
        assert (await place.cp(f"web:{name}", f"here/{name}")).status == 0
        (place.home / name).unlink()
    (place.home / "out").write_text("evil")
    (place.home / "tree").mkdir()
    (place.home / "tree/evil").write_text("evil")
    for words in (("web:out", "here/out"), ("web:tree", "here/tree"), ("web:tree/.", "here/tree")):
        done = await place.cp(*words)
        assert (done.status, "a symbolic link out of its directory" in done.err) == (64, True), done.err
    assert (place.host / "mine").read_text() == "mine"
    assert os.listdir(place.host / "home") == []
    assert (
        await place.cp("web:tree/.", "here/tree/")
    ).status == 0  # its owner has said that it is a directory
    assert os.listdir(place.host / "home") == ["evil"]


@pytest.mark.parametrize("name", [".ssh", "taken"])
@pytest.mark.parametrize("asked", ["web:", "web:~"])
async def test_a_name_that_only_the_guest_has_said_does_not_reach_what_is_there(place, name, asked):
    (place.guest / "etc").mkdir()
    (place.guest / "etc/passwd").write_text(f"ann:x:1000:1000::/root/{name}:/bin/sh\n")
    (place.home / name).mkdir()
    (place.home / name / "authorized_keys").write_text("evil")
    (place.host / "taken").mkdir()
    done = await place.cp("-u", "ann", asked, ".")
    assert (done.status, "the guest calls it" in done.err) == (73, True), done.err
    assert [*place.host.rglob("*")] == [place.host / "taken"]
    assert (await place.cp("-u", "ann", asked, "new")).status == 0
    assert (place.host / "new/authorized_keys").read_text() == "evil"


async def test_an_odd_list_of_users_is_read_as_far_as_it_makes_sense(place):
    (place.guest / "etc").mkdir()
    (place.guest / "etc/passwd").write_text(
        f"root:x:²:0::/x:/bin/sh\nbig:x:{'9' * 5000}:0::/x:\nann:x:1000:1000::/home/ann:/bin/sh\n"
    )
    (place.guest / "home/ann").mkdir(parents=True)
    (place.host / "one").write_text("1")
    assert (await place.cp("-u", "ann", "one", "web:a")).status == 0
    assert (await place.cp("one", "web:b")).status == 0
    for user in ("big", "99999999999", "4294967295"):
        done = await place.cp("-u", user, "one", "web:c")
        assert (done.status, "the guest has no user" in done.err) == (64, True), done.err


async def test_a_list_of_users_without_end_is_not_read_to_its_end(place, monkeypatch):
    from banger.guest import fake
    from banger.guest.methods import Method
    from banger.services.transfer import places

    sent = 0

    async def file_read(call):
        nonlocal sent
        call.start()
        while True:
            await call.send(bytes(32768))
            sent += 32768

    monkeypatch.setattr(fake, "METHODS", {**fake.METHODS, Method.FILE_READ: file_read})
    user = await places.find_user(place.vms.agent, None)
    assert (user.uid, user.home) == (0, "/root")
    assert sent < 8 << 20
