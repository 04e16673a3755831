"""What is written for ssh, and our lines in and out of somebody's file."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from banger.client.rewriting import OwnFile
from banger.client.ssh_config import (
    BEGIN,
    BEGIN_NEW,
    END,
    add_fenced,
    remove_fenced,
    render_block,
    render_include,
    render_target,
)
from banger.client.wire import Failure

INCLUDE = 'Include "/home/ann/.config/banger/ssh_config"'
LINES = st.lists(
    st.one_of(
        st.binary(max_size=20),
        st.sampled_from([b"Host *", b"  User ann", b"", b"# >>> other >>>", b"\r", BEGIN.encode()[:-1]]),
    ),
    max_size=8,
)


@given(lines=LINES, newline=st.sampled_from([b"\n", b"\r\n"]), ended=st.booleans())
def test_taking_away_what_was_added_gives_the_same_bytes(lines, newline, ended):
    content = newline.join(lines) + (newline if ended else b"")
    assume(
        all(
            line.strip() not in (BEGIN.encode(), BEGIN_NEW.encode(), END.encode())
            for line in content.split(b"\n")
        )
    )
    added = add_fenced(content, INCLUDE)
    assert added.endswith(content)
    assert add_fenced(added, INCLUDE) == added
    assert remove_fenced(added) == content


def test_a_file_that_was_made_for_it_goes_with_it_and_stays_if_somebody_has_added_to_it():
    made = add_fenced(None, INCLUDE)
    assert remove_fenced(made) is None
    assert add_fenced(made, INCLUDE) == made
    assert remove_fenced(made + b"Host x\n") == b"Host x\n"
    assert remove_fenced(add_fenced(b"", INCLUDE)) == b""


def test_lines_that_were_moved_come_to_the_top_again():
    content = f"Host x\n  User y\n{BEGIN}\nInclude old\n{END}\nHost z\n".encode()
    assert add_fenced(content, INCLUDE) == f"{BEGIN}\n{INCLUDE}\n{END}\nHost x\n  User y\nHost z\n".encode()


@pytest.mark.parametrize(
    "text",
    [f"{BEGIN}\nInclude x\n", f"Host x\n{END}\n", f"{END}\n{BEGIN}\n", f"{BEGIN}\n{END}\n{BEGIN}\n{END}\n"],
)
def test_half_a_fence_is_refused(text):
    for change in (remove_fenced, lambda content: add_fenced(content, INCLUDE)):
        with pytest.raises(Failure) as caught:
            change(text.encode())
        assert caught.value.code == "conflict"
        assert "by hand" in caught.value.hint


def test_the_block_is_understood_by_ssh(tmp_path):
    ssh = shutil.which("ssh")
    if ssh is None:
        pytest.skip("no OpenSSH client here")
    own = tmp_path / "o w n"
    own.write_text(render_block(("/opt/a b/100%/banger",), "/home/an n/50%/id", "vm"))
    own.chmod(0o600)
    config = tmp_path / "config"
    config.write_bytes(add_fenced(b"Host *\n  User other\n  ForwardAgent yes\n", render_include(str(own))))

    def settle(host):
        said = subprocess.run([ssh, "-F", config, "-G", host], capture_output=True, text=True, check=True)
        return dict(line.split(" ", 1) for line in said.stdout.splitlines() if " " in line)

    web = settle("web.vm")
    assert web["user"] == "root"
    assert web["forwardagent"] == "no"
    assert web["proxyusefdpass"] == "yes"
    assert web["proxycommand"] == "'/opt/a b/100%%/banger' __ssh-proxy '%h'"
    assert web["identityfile"].strip('"') == "/home/an n/50%%/id"
    assert settle("web.example")["user"] == "other"
    assert settle("web.example").get("proxycommand", "none") == "none"


@pytest.mark.parametrize("path", ["/a*b", "/a?b", "/a[b", "/a%b"])
def test_a_file_that_cannot_be_included_is_refused(path):
    with pytest.raises(Failure, match="cannot hold"):
        render_include(path)


@pytest.mark.parametrize("path", ['/a"b', "/a\nb", "/a\\b", "/a/${HOME}/b"])
def test_a_path_that_ssh_cannot_be_told_is_refused(path):
    for render in (
        lambda: render_block((path,), "/key", "vm"),
        lambda: render_block(("/banger",), path, "vm"),
        lambda: render_include(path),
    ):
        with pytest.raises(Failure) as caught:
            render()
        assert repr(path) in caught.value.message


def test_a_host_name_with_a_quote_in_it_is_none_of_ours(tmp_path):
    ssh = shutil.which("ssh")
    if ssh is None:
        pytest.skip("no OpenSSH client here")
    config = tmp_path / "config"
    config.write_text(render_block(("/banger",), "/key", "vm"))
    said = subprocess.run(
        [ssh, "-F", config, "-G", "x'`id`'.vm"], capture_output=True, text=True, check=False
    )
    assert "__ssh-proxy" not in said.stdout


def test_a_block_for_one_vm_names_where_it_is_now():
    text = render_target(
        "web",
        "vm",
        {
            "host": "127.0.0.1", "port": 40022, "user": "root", "identity_file": "/k", "known_hosts_file": "/h",
            "host_key_alias": "banger-1",
        },
    )  # fmt: skip
    assert text.startswith("Host web web.vm\n    HostName 127.0.0.1\n    Port 40022\n")
    assert "HostKeyAlias banger-1\n" in text


# ---- somebody's own file


def test_mode_and_link_of_a_file_are_kept(tmp_path):
    real = tmp_path / "dotfiles" / "config"
    real.parent.mkdir()
    real.write_bytes(b"old")
    real.chmod(0o640)
    link = tmp_path / "config"
    link.symlink_to("dotfiles/config")
    OwnFile(str(link)).replace(b"new")
    assert link.is_symlink()
    assert real.read_bytes() == b"new"
    assert real.stat().st_mode & 0o777 == 0o640
    assert [each.name for each in real.parent.iterdir()] == ["config"]


def test_a_link_to_a_file_that_is_not_there_makes_that_file(tmp_path):
    link = tmp_path / "config"
    link.symlink_to(tmp_path / "elsewhere")
    OwnFile(str(link)).replace(b"new")
    assert link.is_symlink()
    assert (tmp_path / "elsewhere").read_bytes() == b"new"


def test_a_missing_directory_is_made_private_and_the_file_with_it(tmp_path):
    file = tmp_path / ".ssh" / "config"
    OwnFile(str(file)).replace(b"new")
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to have a file of somebody else's")
def test_the_owner_of_a_file_is_kept(tmp_path):
    file = tmp_path / "config"
    file.write_bytes(b"old")
    os.chown(file, 1234, 4321)
    OwnFile(str(file)).replace(b"new")
    assert (file.stat().st_uid, file.stat().st_gid) == (1234, 4321)


def test_a_file_that_has_changed_since_is_left_alone(tmp_path):
    file = tmp_path / "config"
    file.write_bytes(b"old")
    opened = OwnFile(str(file))
    file.write_bytes(b"somebody else's")
    for change in (lambda: opened.replace(b"new"), opened.remove):
        with pytest.raises(Failure, match="changed by somebody else"):
            change()
    assert file.read_bytes() == b"somebody else's"
    assert [each.name for each in tmp_path.iterdir()] == ["config"]


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path, Path("/dev/null")):
        with pytest.raises(Failure):
            OwnFile(str(path))


def test_a_loop_of_links_is_refused(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(Failure):
        OwnFile(str(tmp_path / "a"))
