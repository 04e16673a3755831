"""tooling.plan and tooling.install on a guest whose mise is scripted."""

import asyncio
import hashlib
from contextlib import contextmanager

import msgspec
import pytest
from tests.unit.tooling.guests import LOADER, Told, World

from banger.api.tooling import ToolingInstall, ToolingPlan
from banger.base.problem import Code, Problem
from banger.model.config_checks import MISE_SETTINGS
from banger.model.config_keys import ToolingKeys
from banger.model.vm import VmState
from banger.pinned.catalog import get_pinned
from banger.services.tooling import guest as in_guest
from banger.services.tooling import service as module
from banger.services.tooling.log import InstallLog
from banger.services.tooling.service import ToolingService

MISE = b"the real mise"


@pytest.fixture(autouse=True)
def pinned(monkeypatch, tmp_path):
    """As if these few bytes were mise, and on this host already."""
    mise = get_pinned("mise", "x86_64")._replace(
        sha256=hashlib.sha256(MISE).hexdigest(), size_bytes=len(MISE)
    )
    monkeypatch.setattr(module, "get_pinned", lambda name: mise)
    kept = tmp_path / "programs" / "mise" / mise.version / "mise"
    kept.parent.mkdir(parents=True)
    (tmp_path / "programs").chmod(0o700)
    kept.write_bytes(MISE)
    kept.chmod(0o755)
    return mise


@pytest.fixture
def repository(tmp_path):
    root = tmp_path / "repository"
    root.mkdir()
    (root / ".nvmrc").write_text("22\n")
    return root


@pytest.fixture
def world(repository):
    return World(repository)


@pytest.fixture
def make(world, tmp_path):
    def build(**keys):
        return ToolingService(
            world, world, ToolingKeys(**keys), tmp_path / "programs", lambda vm_id: tmp_path / f"{vm_id}.log"
        )

    return build


def log_on_full_disk(full):
    @contextmanager
    def open_log(path, progress):
        class File:
            write = staticmethod(full)

        yield InstallLog(File(), progress)

    return open_log


async def install(service, told=None, **asked):
    return await service.install(ToolingInstall(vm="web", **asked), told or Told())


async def test_an_installation_puts_mise_there_and_tells_the_workspace_where_tools_are(world, make):
    told = Told()
    done = await install(make(), told)
    assert (done.changed, [(tool.name, tool.asked, tool.version) for tool in done.tools]) == (
        True,
        [("node", "22", "22.1.0")],
    )
    assert world.guest.files["/usr/local/bin/mise"] == MISE
    assert b'"node" = ["22"]' in world.guest.files[in_guest.CONFIG]
    assert world.workspace.environment["PATH"].startswith("/opt/banger/tools/installs/node/22/bin:")
    assert world.workspace.environment["JAVA_HOME"] == "/j'v"
    assert "install node" in told.stages
    assert told.details == ["mise installing", "mise done"]
    assert "mise installing" in open(done.log).read()


async def test_the_profile_quotes_what_the_guest_has_said(world, make):
    await install(make())
    profile = world.guest.files[in_guest.PROFILE].decode()
    assert "PATH=/opt/banger/tools/installs/node/22/bin:$PATH; export PATH" in profile
    assert "JAVA_HOME='/j'\"'\"'v'; export JAVA_HOME" in profile


async def test_mise_runs_outside_of_the_repository_with_the_configured_mirrors(world, make):
    await install(make(environment={"MISE_NODE_MIRROR_URL": "http://10.0.2.2/"}))
    environment = dict(world.guest.request.env)
    assert world.guest.request.cwd == in_guest.ROOT
    assert environment["MISE_NODE_MIRROR_URL"] == "http://10.0.2.2/"
    assert environment["MISE_GLOBAL_CONFIG_FILE"] == in_guest.CONFIG
    assert not any("TRUST" in name for name in environment if name != "MISE_USE_VERSIONS_HOST_TRACK")


def test_the_configuration_refuses_what_mise_is_told_here():
    assert in_guest.OURS == MISE_SETTINGS


async def test_a_second_installation_asks_mise_only_what_there_is(world, make):
    service = make()
    await install(service)
    world.workspace = msgspec.structs.replace(world.workspace, environment={})
    done = await install(service)
    assert done.changed is False
    assert len(world.guest.installations) == 1
    assert world.workspace.environment["PATH"]


async def test_another_version_in_the_repository_is_installed(world, make, repository):
    service = make()
    await install(service)
    (repository / ".nvmrc").write_text("24\n")
    await install(service)
    assert len(world.guest.installations) == 2
    assert b'"node" = ["24"]' in world.guest.files[in_guest.INSTALLED]


async def test_what_failed_to_install_is_forgotten_when_the_repository_takes_it_back(world, make, repository):
    """mise is asked about what is installed whole, not about what was tried last."""
    service = make()
    await install(service)
    (repository / ".nvmrc").write_text("24\n")
    world.guest.status = 1
    with pytest.raises(Problem):
        await install(service)
    (repository / ".nvmrc").write_text("22\n")
    done = await install(service)
    assert done.changed is False
    assert world.guest.files[in_guest.CONFIG] == world.guest.files[in_guest.INSTALLED]
    assert b'"node" = ["22"]' in world.guest.files[in_guest.CONFIG]


async def test_a_log_that_cannot_be_written_ends_no_installation(world, make, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "open_log", log_on_full_disk(full))
    told = Told()
    done = await install(make(), told)
    assert done.changed
    assert told.details == ["mise installing", "mise done"]


async def test_a_repository_that_wants_nothing_touches_no_guest(world, make, repository):
    (repository / ".nvmrc").unlink()
    done = await install(make())
    assert (done.changed, done.tools, world.guest.ran) == (False, (), [])


async def test_without_nat_nothing_is_installed_but_what_is_there_is_found(repository, tmp_path, world, make):
    service = make()
    await install(service)
    world.vm = msgspec.structs.replace(world.vm, spec=msgspec.structs.replace(world.vm.spec, nat=False))
    assert (await install(service)).changed is False
    (repository / ".nvmrc").write_text("24\n")
    with pytest.raises(Problem, match="no way to the network") as caught:
        await install(service)
    assert caught.value.code is Code.UNAVAILABLE
    assert "--nat" in caught.value.hint
    assert "--no-bootstrap" in caught.value.hint


async def test_a_failure_has_the_last_lines_and_says_where_the_rest_is(world, make):
    world.guest.status = 1
    world.guest.says = [b"%d\n" % number for number in range(100)] + [b"mise ERROR 404"]
    with pytest.raises(Problem, match="cannot install the tools of web") as caught:
        await install(make())
    assert caught.value.detail.endswith("99\nmise ERROR 404")
    assert "vm logs --source tooling web" in caught.value.hint
    assert in_guest.INSTALLED not in world.guest.files
    assert world.workspace.environment == {}


async def test_out_of_time_mise_is_ended(world, make):
    world.guest.hangs = True
    with pytest.raises(Problem, match="not installed after 1s") as caught:
        await install(make(), timeout_s=1)
    assert "--bootstrap-timeout 2s" in caught.value.hint
    assert world.guest.left == 1


async def test_cancelled_mise_is_ended_and_the_next_may_begin(world, make):
    world.guest.hangs = True
    service = make()
    task = asyncio.ensure_future(install(service))
    while not world.guest.installations:
        await asyncio.sleep(0)
    assert world.users == 1
    with pytest.raises(Problem, match="already"):
        await install(service)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert world.guest.left == 1
    world.guest.hangs = False
    assert (await install(service)).changed is True


async def test_what_a_guest_says_is_bounded_in_the_log(world, make, monkeypatch):
    monkeypatch.setattr("banger.services.tooling.log._LOG_MAX_BYTES", 1000)
    world.guest.says = [b"a" * 700, b"b" * 700, b"\nend\n"]
    told = Told()
    done = await install(make(), told)
    assert len(open(done.log).read()) == 1000
    assert told.details[-1] == "end"


async def test_a_guest_without_glibc_is_told_before_anything_is_put_there(world, make):
    del world.guest.files[LOADER]
    with pytest.raises(Problem, match="mise needs glibc") as caught:
        await install(make())
    assert caught.value.code is Code.UNAVAILABLE
    assert list(world.guest.files) == []


async def test_a_mise_of_the_images_own_is_used(world, make):
    del world.guest.files[LOADER]
    world.guest.own_mise = "/usr/bin/mise\n"
    await install(make())
    assert world.guest.installations == [("/usr/bin/mise", "install")]
    assert "/usr/local/bin/mise" not in world.guest.files


@pytest.mark.parametrize("answer", ["", "[]", "{", '{"NOPATH": "1"}', '{"PATH": 5}', "[" * 100_000])
async def test_an_answer_of_the_guests_that_is_none_fails(world, make, answer):
    world.guest.answers["env"] = answer
    with pytest.raises(Problem, match="cannot tell what is installed"):
        await install(make())
    assert world.workspace.environment == {}


async def test_what_the_guest_says_about_versions_is_held_to_account(world, make):
    world.guest.answers["ls"] = (
        '{"node": [{"version": "\\u001b[31m", "requested_version": "22", "installed": true}, 5]}'
    )
    world.guest.environment |= {"bad name": "x", "MULTI": "a\nb", "LONG": "x" * 9000, "GOROOT": "/go"}
    done = await install(make())
    assert done.tools[0].version == "?[31m"
    assert set(world.workspace.environment) == {"PATH", "JAVA_HOME", "GOROOT", "MISE_DATA_DIR"}


async def test_a_vm_that_does_not_run_or_has_no_workspace_is_refused(world, make):
    running, workspace = world.vm, world.workspace
    world.vm = msgspec.structs.replace(running, state=VmState.STOPPED)
    with pytest.raises(Problem) as caught:
        await install(make())
    assert caught.value.code is Code.NOT_RUNNING
    world.vm, world.workspace = running, None
    with pytest.raises(Problem, match="web has no workspace") as caught:
        await install(make())
    assert "workspace prepare web" in caught.value.hint
    world.workspace = workspace


async def test_a_plan_is_of_the_repository_a_directory_is_in(make, repository):
    (repository / ".git").mkdir()
    (repository / "api" / "v1").mkdir(parents=True)
    (repository / "api" / "v1" / "go.mod").write_text("module a\ngo 1.22\n")
    planned = await make(enabled=False).plan(ToolingPlan(path=str(repository / "api" / "v1")))
    assert (planned.root, planned.subdirectory, planned.enabled) == (str(repository), "api/v1", False)
    assert [(tool.name, tool.file) for tool in planned.tools] == [("node", ".nvmrc"), ("go", "api/v1/go.mod")]


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("", Code.BAD_REQUEST),
        ("relative", Code.BAD_REQUEST),
        ("/a\0b", Code.BAD_REQUEST),
        ("/no/such", Code.NOT_FOUND),
    ],
)
async def test_a_path_that_is_no_directory_is_refused(make, path, code):
    with pytest.raises(Problem) as caught:
        await make().plan(ToolingPlan(path=path))
    assert caught.value.code is code
    assert caught.value.hint
