"""Keys that OpenSSH itself accepts, and an owner's key that is never replaced."""

import shutil
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from banger.base.problem import Code, Problem
from banger.guest.sshkeys import ensure_owner_key, make_key_pair, render_known_host


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")
def test_ssh_keygen_derives_the_same_public_key(tmp_path) -> None:
    pair = make_key_pair("banger@host")
    path = tmp_path / "key"
    path.write_bytes(pair.private)
    path.chmod(0o600)
    derived = subprocess.run(["ssh-keygen", "-y", "-f", path], check=True, capture_output=True, text=True)
    assert derived.stdout.split()[:2] == pair.public.split()[:2]
    assert pair.public.endswith(" banger@host")


def test_the_owners_key_is_made_once_and_kept(tmp_path) -> None:
    path = tmp_path / "keys" / "id_ed25519"
    first = ensure_owner_key(path, "owner")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert ensure_owner_key(path, "other") == first
    assert path.read_bytes() == first.private
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["id_ed25519", "id_ed25519.pub"]


def test_threads_that_make_the_key_at_once_get_the_same_one(tmp_path) -> None:
    barrier = Barrier(8)

    def ensure(path):
        barrier.wait()
        return ensure_owner_key(path, "owner").private

    with ThreadPoolExecutor(8) as pool:
        for attempt in range(20):
            path = tmp_path / f"keys{attempt}" / "id_ed25519"
            made = set(pool.map(ensure, [path] * 8))
            assert made == {path.read_bytes()}
            assert sorted(entry.name for entry in path.parent.iterdir()) == ["id_ed25519", "id_ed25519.pub"]


def test_a_lost_public_half_is_written_anew(tmp_path) -> None:
    path = tmp_path / "keys" / "id_ed25519"
    first = ensure_owner_key(path, "owner")
    (path.parent / "id_ed25519.pub").unlink()
    assert ensure_owner_key(path, "owner") == first
    assert (path.parent / "id_ed25519.pub").read_text() == first.public + "\n"


def test_a_key_that_others_can_read_is_refused_and_left_alone(tmp_path) -> None:
    path = tmp_path / "keys" / "id_ed25519"
    first = ensure_owner_key(path, "owner")
    path.chmod(0o644)
    with pytest.raises(Problem) as caught:
        ensure_owner_key(path, "owner")
    assert caught.value.code is Code.UNAUTHORIZED
    assert path.read_bytes() == first.private


def test_what_is_no_key_is_named_and_left_alone(tmp_path) -> None:
    path = tmp_path / "keys" / "id_ed25519"
    path.parent.mkdir(mode=0o700)
    path.write_bytes(b"not a key")
    path.chmod(0o600)
    with pytest.raises(Problem) as caught:
        ensure_owner_key(path, "owner")
    assert caught.value.code is Code.OPERATION_FAILED
    assert path.read_bytes() == b"not a key"


def test_known_hosts_lines_name_every_address() -> None:
    public = "ssh-ed25519 AAAA comment"
    assert render_known_host(("10.0.0.2", "dev"), public) == "10.0.0.2,dev ssh-ed25519 AAAA\n"
    assert render_known_host(("127.0.0.1",), public, port=2201) == "[127.0.0.1]:2201 ssh-ed25519 AAAA\n"
    with pytest.raises(Problem):
        render_known_host(("a b",), public)


def test_importing_the_module_does_not_import_cryptography() -> None:
    code = "import sys, banger.guest.sshkeys; sys.exit('cryptography' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
