"""The tools of a repository, installed for real: mise from where it comes from, node from a mirror of ours."""

import signal
import subprocess

import pytest
from tests.support.banger import refused, wait_until
from tests.support.node_mirror import VERSION, open_mirror


@pytest.fixture(scope="module")
def mirror():
    with open_mirror("vm") as mirror:
        yield mirror


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """Wants node 22, by .nvmrc, and would be content with any from 18 on."""
    root = tmp_path_factory.mktemp("tools") / "web"
    root.mkdir()
    (root / ".nvmrc").write_text("22\n")
    (root / "package.json").write_text('{"name": "web", "engines": {"node": ">=18"}}\n')
    git = ("git", "-c", "user.name=x", "-c", "user.email=x@example.org")
    for words in (("init", "-q"), ("add", "-A"), ("commit", "-qm", "one")):
        subprocess.run([*git, *words], cwd=root, check=True, capture_output=True)
    return root


@pytest.fixture(scope="module")
def vm(banger, mirror, repository):
    """With the repository, and without its tools yet. The mirror is where the configuration says."""
    banger.configure(
        f'network = "user"\n[tooling]\nenvironment = {{ MISE_NODE_MIRROR_URL = "{mirror.url}" }}\n'
    )
    banger.run("vm", "run", str(repository), "-d", "--name", "tools", "--nat", "--no-bootstrap")
    return "tools"


@pytest.fixture
def absent(banger, vm):
    """Nothing is installed, whatever was before."""
    banger.guest(vm, "sh", "-c", "rm -rf /opt/banger/tools/*")


@pytest.fixture
def present(banger, vm):
    banger.run("tooling", "install", vm)


def mise_processes(banger, vm):
    script = "for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline 2>/dev/null | grep -a '^/usr/local/bin/mise '; done; true"
    return banger.guest(vm, "sh", "-c", script).splitlines()


def test_the_plan_names_the_file_that_is_believed(banger, vm, repository):
    planned = banger.json("tooling", "plan", str(repository))
    assert [(tool["name"], tool["version"], tool["file"]) for tool in planned["tools"]] == [
        ("node", "22", ".nvmrc")
    ]
    assert planned["warnings"] == []


def test_without_a_network_no_vm_is_made(banger, vm, repository):
    text = refused(banger, "vm", "run", str(repository), "--name", "never", status=64, words="node 22")
    assert "--nat" in text
    assert "--no-bootstrap" in text
    assert [each["name"] for each in banger.json("vm", "list", "--all")["vms"]] == [vm]


def test_a_mirror_that_has_nothing_is_one_line_and_a_log(banger, vm, repository, mirror):
    (repository / ".nvmrc").write_text("23.0.0\n")
    text = refused(
        banger, "tooling", "install", vm, status=71, words="mise cannot install the tools of tools"
    )
    assert "404" in text
    (repository / ".nvmrc").write_text("22\n")
    assert "404" in banger.run("vm", "logs", "--source", "tooling", vm).stdout.decode()
    assert "/v23.0.0/" in "".join(mirror.requests)


def test_an_installation_that_takes_too_long_is_ended(banger, vm, absent, mirror):
    with mirror.stalled() as begun:
        text = refused(
            banger,
            "tooling",
            "install",
            vm,
            "--bootstrap-timeout",
            "20s",
            status=71,
            words="not installed after 20s",
        )
        assert begun.is_set()
        assert "--bootstrap-timeout 40s" in text
        wait_until(lambda: mise_processes(banger, vm) == [])


def test_cancelled_in_the_middle_mise_ends_and_the_vm_goes_on(banger, vm, absent, mirror):
    with mirror.stalled() as begun:
        client = banger.start(
            "tooling", "install", vm, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert begun.wait(60)
        text = refused(banger, "tooling", "install", vm, status=75, words="being installed in tools already")
        assert "operation list" in text
        client.send_signal(signal.SIGINT)
        assert client.wait(60) == 130
        client.stdout.close()
        client.stderr.close()
        wait_until(lambda: mise_processes(banger, vm) == [])
    assert banger.json("vm", "show", vm)["vm"]["state"] == "running"


def test_the_repositorys_version_is_what_runs(banger, vm, absent):
    installed = banger.json("tooling", "install", vm)
    assert installed["changed"] is True
    assert [(tool["name"], tool["version"]) for tool in installed["tools"]] == [("node", VERSION)]
    assert banger.guest(vm, "node", "--version") == f"v{VERSION}\n"
    assert banger.guest(vm, "pwd") == "/root/web\n"


def test_every_way_into_the_guest_finds_it(banger, vm, present):
    version = f"v{VERSION}\n".encode()
    assert banger.run("vm", "ssh", vm, "--", "node", "--version").stdout == version
    assert banger.run("vm", "ssh", vm, "--", "sh", "-lc", "node --version").stdout == version
    assert banger.run("vm", "exec", vm, "-w", "/", "--", "node", "--version").stdout == version
    banger.run("session", "start", vm, "--name", "asks", "--", "node", "--version")
    wait_until(lambda: banger.run("session", "logs", f"{vm}/asks").stdout == version)


def test_a_second_installation_fetches_nothing(banger, vm, present, mirror):
    before = list(mirror.requests)
    installed = banger.json("tooling", "install", vm)
    assert installed["changed"] is False
    assert [tool["version"] for tool in installed["tools"]] == [VERSION]
    assert mirror.requests == before


def test_a_mise_file_of_the_repositorys_runs_nothing(banger, vm, absent, repository):
    """Its tools are taken; its hooks and its environment are not."""
    mark = "/root/hook-ran"
    hooks = "".join(f'{hook} = "touch {mark}"\n' for hook in ("preinstall", "postinstall", "enter"))
    (repository / "mise.toml").write_text(f'[tools]\nnode = "22"\n[env]\n_.source = "x.sh"\n[hooks]\n{hooks}')
    (repository / "x.sh").write_text(f"touch {mark}\n")
    try:
        banger.run("workspace", "prepare", vm, "--untracked")
        installed = banger.json("tooling", "install", vm)
    finally:
        (repository / "mise.toml").unlink()
        (repository / "x.sh").unlink()
    assert [tool["file"] for tool in installed["tools"]] == ["mise.toml"]
    assert "not used" in installed["warnings"][0]["text"]
    assert banger.guest(vm, "node", "--version") == f"v{VERSION}\n"
    seen = banger.guest(vm, "sh", "-c", f"ls /root/web/mise.toml; ls {mark} 2>/dev/null || echo none")
    assert seen.split() == ["/root/web/mise.toml", "none"]


def test_running_in_a_repository_installs_and_runs(banger, vm, repository):
    done = banger.run("vm", "run", str(repository), "--rm", "--nat", "--", "node", "-p", "process.version")
    assert done.stdout.decode() == f"v{VERSION}\n"
    assert b"install node" in done.stderr
