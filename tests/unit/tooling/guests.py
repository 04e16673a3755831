"""A guest in which mise is a few answers: what is installed by it, what it says, and how it ends are the test's."""

import asyncio
import json
from contextlib import asynccontextmanager, contextmanager

from tests.unit.model.rows import make_spec, make_vm

from banger.base.problem import not_found
from banger.guest.command import ExitStatus, Result
from banger.guest.errors import GuestProblem
from banger.model.vm import VmState
from banger.model.workspace import Workspace
from banger.services.tooling.guest import BASE_PATH

LOADER = "/lib64/ld-linux-x86-64.so.2"


class Guest:
    """Stands for an Agent. `says` is mise's output, `status` its end; while `hangs` it never ends."""

    def __init__(self):
        self.files = {LOADER: b"elf"}
        self.ran = []
        self.says = [b"mise installing\n", b"\x1b[32mmise done\x1b[0m\r"]
        self.status = 0
        self.hangs = False
        self.left = 0
        self.own_mise = ""
        self.environment = {
            "PATH": f"/opt/banger/tools/installs/node/22/bin:{BASE_PATH}",
            "JAVA_HOME": "/j'v",
        }
        self.listed = {"node": [{"version": "22.1.0", "requested_version": "22", "installed": True}]}
        self.answers = {}  # instead of what mise would say, by its first word

    async def file_write(self, path, source, **_):
        self.files[path] = source if isinstance(source, bytes) else b"".join([part async for part in source])
        return len(self.files[path])

    @asynccontextmanager
    async def file_read(self, path, **_):
        if path not in self.files:
            raise GuestProblem(2, f"{path}: not found")

        async def parts():
            yield self.files[path]

        yield parts()

    async def file_stat(self, path, **_):
        if path not in self.files:
            raise GuestProblem(2, f"{path}: not found")

        class Entry:
            size_bytes = len(self.files[path])

        return Entry

    async def run(self, argv, **_):
        self.ran.append(tuple(argv))
        if argv[:2] == ("/bin/sh", "-c"):
            return self._result(self.own_mise) if "command -v" in argv[2] else self._result("")
        if argv[1] in self.answers:
            return self._result(self.answers[argv[1]])
        return self._result(json.dumps(self.environment if argv[1] == "env" else self.listed))

    @asynccontextmanager
    async def exec(self, request):
        self.ran.append(request.argv)
        self.request = request
        try:
            yield _Command(self)
        finally:
            self.left += 1

    def _result(self, text):
        return Result(ExitStatus(0, None), text.encode(), b"", False)

    @property
    def installations(self):
        return [argv for argv in self.ran if argv[1:] == ("install",)]


class _Command:
    def __init__(self, guest):
        self._guest = guest
        self._left = list(guest.says)

    def __aiter__(self):
        return self

    async def __anext__(self):
        if self._left:
            return 1, self._left.pop(0)
        if self._guest.hangs:
            await asyncio.Event().wait()
        raise StopAsyncIteration

    async def wait(self):
        return ExitStatus(self._guest.status, None)


class World:
    """One VM with a workspace whose repository is a directory of the test's."""

    def __init__(self, repository, *, nat=True):
        self.vm = make_vm("web", VmState.RUNNING, spec=make_spec(nat=nat))
        self.guest = Guest()
        self.users = 0
        self.workspace = Workspace(vm_id=self.vm.id, host_root=str(repository), guest_path="/root/web")

    def resolve(self, reference):
        if reference != self.vm.name:
            raise not_found(f"there is no VM {reference!r}")
        return self.vm

    def get_agent(self, vm):
        return self.guest

    @contextmanager
    def using(self, vm_id):
        self.users += 1
        yield
        self.users -= 1

    # the store's

    def find(self, vm_id):
        return self.workspace

    def save(self, workspace):
        self.workspace = workspace


class Told:
    """Progress as lists."""

    def __init__(self):
        self.stages = []
        self.details = []

    def enter(self, stage):
        self.stages.append(stage)

    def leave(self): ...

    def tell(self, detail):
        self.details.append(detail)
