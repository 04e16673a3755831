"""The store on a real file: records, uniqueness, migrations, damage, a full disk."""

import os
import sqlite3
import stat
import subprocess
import sys

import msgspec
import pytest

from banger.base.problem import Code, Outcome, Problem
from banger.model.operation import Operation, OperationState, Selection
from banger.model.session import SessionRow, SessionState
from banger.model.vm import Stage, VmRecord, VmRuntime, VmSpec, VmState
from banger.model.workspace import Workspace
from banger.store.migration import Migration, read_migrations
from banger.store.sqlite import open_store

AT = "2026-01-01T00:00:00.000Z"
LATER = "2026-01-10T00:00:00.000Z"
EVER = "2000-01-01T00:00:00.000Z"
NEXT = len(read_migrations()) + 1
SPEC = VmSpec(
    image="i", kernel="k", vcpus=1, memory_mib=512, disk_size_bytes=2**33, system_overlay_size_bytes=2**33
)


def make_vm(name, vm_id, **changes):
    values = {"state": VmState.CREATED, "created_at": AT, "updated_at": AT, "last_touched_at": AT, **changes}
    return VmRecord(id=vm_id, name=name, spec=SPEC, **values)


def make_operation(op_id, state=OperationState.RUNNING, **changes):
    return Operation(id=op_id, kind="vm.create", subject="web", state=state, started_at=AT, **changes)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "banger.db"


@pytest.fixture
def store(path):
    store = open_store(path)
    yield store
    store.close()


def test_a_vm_comes_back_as_it_was_written_also_after_reopening(store, path):
    runtime = VmRuntime(
        backend="qemu",
        pid=1,
        start_time=2,
        agent_socket="a",
        control_socket="c",
        accelerator="tcg",
        ssh_port=3,
    )
    vm = make_vm("web", "a" * 12, runtime=runtime, labels={"k": "v"}, boot_stages=(
        Stage(name="s", started_ms=1.5, duration_ms=2.0),))  # fmt: skip
    store.vms.insert(vm)
    assert store.vms.find(vm.id) == vm
    store.close()
    again = open_store(path)
    assert list(again.vms.list()) == [vm]
    again.close()


def test_vms_are_listed_by_name_saved_and_deleted(store):
    for name, letter in (("b", "1"), ("a", "2"), ("c", "3")):
        store.vms.insert(make_vm(name, letter * 12))
    assert [vm.name for vm in store.vms.list()] == ["a", "b", "c"]
    changed = msgspec.structs.replace(store.vms.find("1" * 12), state=VmState.RUNNING)
    store.vms.save(changed)
    assert store.vms.find("1" * 12).state is VmState.RUNNING
    store.vms.delete("1" * 12)
    store.vms.delete("1" * 12)
    assert store.vms.find("1" * 12) is None


def test_a_taken_name_is_refused_with_its_holder(store):
    store.vms.insert(make_vm("web", "1" * 12))
    with pytest.raises(Problem) as caught:
        store.vms.insert(make_vm("web", "2" * 12))
    assert caught.value.code is Code.ALREADY_EXISTS
    assert caught.value.outcome is Outcome.NOT_STARTED
    assert "1" * 12 in caught.value.brief
    assert len(store.vms.list()) == 1
    store.vms.insert(make_vm("db", "3" * 12))
    with pytest.raises(Problem) as caught:
        store.vms.save(make_vm("web", "3" * 12))
    assert caught.value.code is Code.ALREADY_EXISTS


def test_saving_a_vm_without_row_is_a_bug(store):
    with pytest.raises(AssertionError):
        store.vms.save(make_vm("web", "1" * 12))
    store.vms.insert(make_vm("web", "1" * 12))  # the transaction was rolled back


def test_operations_keep_their_order_and_are_pruned(store):
    for number in range(5):
        store.operations.save(make_operation(f"op-{number}"))
    for number in (0, 1, 3, 4):
        store.operations.save(
            make_operation(f"op-{number}", OperationState.SUCCEEDED, result={"n": [number]})
        )
    assert [operation.id for operation in store.operations.list(3)] == ["op-4", "op-3", "op-2"]
    assert store.operations.find("op-1").result == {"n": [1]}
    store.operations.prune(2, EVER)
    assert [operation.id for operation in store.operations.list(9)] == ["op-4", "op-3", "op-2"]
    store.operations.prune(0, EVER)
    assert [operation.id for operation in store.operations.list(9)] == ["op-2"]
    assert store.operations.find("nope") is None


def test_operations_are_pruned_by_age_but_what_runs_is_not_and_what_is_unknown_by_age_only(store):
    states = {
        "old": OperationState.FAILED,
        "old-running": OperationState.RUNNING,
        "old-unknown": OperationState.UNKNOWN,
        "unknown": OperationState.UNKNOWN,
        "ended": OperationState.SUCCEEDED,
    }
    for op_id, state in states.items():
        store.operations.save(make_operation(op_id))
        if state is not OperationState.RUNNING:
            finished_at = AT if "old" in op_id else LATER
            store.operations.save(make_operation(op_id, state, finished_at=finished_at))
    store.operations.prune(9, LATER)
    assert [operation.id for operation in store.operations.list(None)] == ["ended", "unknown", "old-running"]
    store.operations.prune(0, LATER)
    assert [operation.id for operation in store.operations.list(None)] == ["unknown", "old-running"]


def test_operations_are_selected(store):
    store.operations.save(make_operation("op-0"))
    store.operations.save(make_operation("op-1", OperationState.UNKNOWN, finished_at=AT))
    store.operations.save(msgspec.structs.replace(make_operation("op-2"), kind="vm.stop", subject="db"))

    def select(**wanted):
        return [operation.id for operation in store.operations.list(9, Selection(**wanted))]

    assert select() == ["op-2", "op-1", "op-0"]
    assert select(states=frozenset({OperationState.RUNNING})) == ["op-2", "op-0"]
    assert select(states=frozenset({OperationState.RUNNING, OperationState.UNKNOWN}), kind="vm.create") == [
        "op-1",
        "op-0",
    ]
    assert select(states=frozenset()) == []
    assert select(subject="db") == ["op-2"]
    assert select(subject="db' OR 1") == []


def test_an_operation_that_is_named_is_found_by_its_new_name(store):
    store.operations.save(make_operation("op"))
    store.operations.save(msgspec.structs.replace(make_operation("op"), subject="db", object_id="0" * 12))
    assert [each.object_id for each in store.operations.list(9, Selection(subject="db"))] == ["0" * 12]


def test_the_files_are_private_whatever_the_umask(path):
    before = os.umask(0)
    try:
        store = open_store(path)
    finally:
        os.umask(before)
    store.operations.save(make_operation("op"))
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    assert store.connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert store.connection.execute("PRAGMA synchronous").fetchone() == (1,)
    store.close()


def test_a_symbolic_link_is_not_followed(path, tmp_path):
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Problem) as caught:
        open_store(path)
    assert caught.value.code is Code.UNAVAILABLE
    assert not (tmp_path / "elsewhere").exists()


class TestMigrations:
    def test_each_is_recorded_with_its_checksum_and_runs_once(self, path, store):
        rows = store.connection.execute("SELECT number, name, checksum FROM migrations").fetchall()
        assert rows == [(m.number, m.name, m.checksum) for m in read_migrations()]
        store.close()
        open_store(path).close()

    def test_a_new_one_is_applied_to_an_old_file(self, path, store):
        store.vms.insert(make_vm("web", "1" * 12))
        store.close()
        more = [*read_migrations(), Migration(NEXT, "note", "ALTER TABLE vms ADD COLUMN note TEXT;")]
        store = open_store(path, migrations=more)
        assert store.connection.execute("SELECT note FROM vms").fetchall() == [(None,)]
        assert store.vms.find("1" * 12).name == "web"
        store.close()

    def test_one_that_fails_leaves_nothing_of_itself(self, path, store):
        store.close()
        broken = Migration(
            NEXT, "broken", "CREATE TABLE half (x TEXT) STRICT;\nINSERT INTO nowhere VALUES (1);"
        )
        with pytest.raises(Problem) as caught:
            open_store(path, migrations=[*read_migrations(), broken])
        assert caught.value.code is Code.UNAVAILABLE
        store = open_store(path)
        assert not store.connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'half'").fetchall()
        store.close()

    def test_a_newer_file_is_refused_and_left_alone(self, path, store):
        store.close()
        open_store(path, migrations=[*read_migrations(), Migration(NEXT, "x", "CREATE TABLE x (y);")]).close()
        before = path.read_bytes()
        with pytest.raises(Problem, match="newer") as caught:
            open_store(path)
        assert caught.value.code is Code.UNAVAILABLE
        assert caught.value.hint
        assert path.read_bytes() == before

    def test_an_edited_migration_is_refused(self, path, store):
        store.close()
        (first, *rest) = read_migrations()
        with pytest.raises(Problem, match="migration 1 differs"):
            open_store(path, migrations=[first._replace(script=first.script + "-- edited\n"), *rest])

    def test_operations_of_the_first_schema_get_what_the_second_looks_at(self, path):
        store = open_store(path, migrations=read_migrations()[:1])
        old = make_operation("op", OperationState.SUCCEEDED, finished_at=AT)
        store.connection.execute(
            "INSERT INTO operations (id, state, record) VALUES (?, ?, ?)",
            (old.id, old.state.value, msgspec.json.encode(old).decode()),
        )
        store.close()
        store = open_store(path)
        assert list(store.operations.list(None, Selection(kind="vm.create", subject="web"))) == [old]
        store.operations.prune(9, LATER)
        assert not store.operations.list(None)
        store.close()

    def test_scripts_are_split_at_whole_statements(self, tmp_path):
        (tmp_path / "0001_a.sql").write_text(
            "CREATE TABLE a (x TEXT DEFAULT 'a;b');\n-- c\nCREATE TABLE b (y);\n"
        )
        store = open_store(tmp_path / "db", migrations=read_migrations(tmp_path))
        names = store.connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
        assert {("a",), ("b",)} <= set(names)
        store.close()


class TestDamage:
    def check_refused(self, path):
        before = path.read_bytes()
        with pytest.raises(Problem, match="damaged") as caught:
            open_store(path)
        assert caught.value.code is Code.UNAVAILABLE
        assert str(path) in caught.value.hint
        assert path.read_bytes() == before

    def test_garbage_is_refused_untouched(self, path):
        path.write_bytes(b"this is no database at all" * 100)
        self.check_refused(path)

    def test_a_header_with_garbage_behind_is_refused_untouched(self, path):
        path.write_bytes(b"SQLite format 3\0" + os.urandom(8176))
        self.check_refused(path)

    def test_torn_pages_are_refused_untouched(self, path, store):
        for number in range(200):
            store.operations.save(make_operation(f"op-{number}"))
        store.close()
        content = bytearray(path.read_bytes())
        content[4096:12288] = b"\xa5" * 8192
        path.write_bytes(content)
        self.check_refused(path)

    def test_a_truncated_file_is_refused_untouched(self, path, store):
        for number in range(200):
            store.operations.save(make_operation(f"op-{number}"))
        store.close()
        os.truncate(path, path.stat().st_size // 2 // 4096 * 4096)
        self.check_refused(path)

    def test_an_empty_file_is_a_new_database(self, path):
        path.touch()
        open_store(path).close()

    def test_a_record_that_is_not_understood_names_the_database(self, store):
        store.vms.insert(make_vm("web", "1" * 12))
        store.connection.execute("UPDATE vms SET record = '{\"id\": 5}'")
        with pytest.raises(Problem, match="damaged"):
            store.vms.list()


def test_a_full_disk_is_no_space_and_loses_nothing(store):
    store.vms.insert(make_vm("web", "1" * 12))
    pages = store.connection.execute("PRAGMA page_count").fetchone()[0]
    store.connection.execute(f"PRAGMA max_page_count = {pages}")

    def fill():
        for number in range(500):
            store.operations.save(make_operation(f"op-{number}", detail="x" * 2000))

    with pytest.raises(Problem) as caught:
        fill()
    assert caught.value.code is Code.NO_SPACE
    assert caught.value.hint
    assert store.vms.find("1" * 12).name == "web"
    store.connection.execute("PRAGMA max_page_count = 100000")
    store.operations.save(make_operation("after"))
    assert store.operations.find("after")


def test_another_writer_is_a_conflict(path, store, monkeypatch):
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    store.connection.execute("PRAGMA busy_timeout = 10")
    with pytest.raises(Problem) as caught:
        store.vms.delete("x")
    assert caught.value.code is Code.CONFLICT
    other.execute("ROLLBACK")
    other.close()
    store.vms.delete("x")


def test_what_was_committed_survives_a_kill(path):
    script = (
        "import sys, os, signal, pathlib\n"
        "from banger.store.sqlite import open_store\n"
        "from banger.model.operation import Operation, OperationState as S\n"
        "store = open_store(pathlib.Path(sys.argv[1]))\n"
        "for n in range(50): store.operations.save(Operation(id=f'op-{n}', kind='k', subject='s', state=S.RUNNING,"
        " started_at='t'))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", script, str(path)], check=False).returncode == -9
    store = open_store(path)
    assert len(store.operations.list(100)) == 50
    store.close()


def make_session(session_id, vm_id, name, **changes):
    values = {"state": SessionState.STARTING, "created_at": AT, "argv": ("make",), **changes}
    return SessionRow(id=session_id, vm_id=vm_id, name=name, **values)


def test_sessions_and_workspaces_come_back_and_go_with_their_vm(store, path):
    web, db = make_vm("web", "a" * 12), make_vm("db", "b" * 12)
    for vm in (web, db):
        store.vms.insert(vm)
    sessions = [make_session("s-1", web.id, "build"), make_session("s-2", db.id, "build"),
                make_session("s-3", web.id, "serve", tags={"k": "v"}, pty=True)]  # fmt: skip
    for session in sessions:
        store.sessions.save(session)
    workspace = Workspace(vm_id=web.id, host_root="/src", guest_path="/root/src")
    store.workspaces.save(workspace)
    store.workspaces.save(msgspec.structs.replace(workspace, branch="main"))
    store.sessions.save(msgspec.structs.replace(sessions[0], state=SessionState.LOST))
    assert store.sessions.find("s-1").state is SessionState.LOST
    assert [session.id for session in store.sessions.list()] == ["s-1", "s-2", "s-3"]
    assert [session.id for session in store.sessions.list(web.id)] == ["s-1", "s-3"]
    assert store.workspaces.find(web.id).branch == "main"
    assert [each.vm_id for each in store.workspaces.list()] == [web.id]
    store.vms.delete(web.id)
    assert [session.id for session in store.sessions.list()] == ["s-2"]
    assert store.workspaces.find(web.id) is None
    store.sessions.delete("s-2")
    store.workspaces.delete(web.id)
    assert not store.sessions.list()


def test_a_session_says_why_it_cannot_be_written(store):
    store.vms.insert(make_vm("web", "a" * 12))
    store.sessions.save(make_session("s-1", "a" * 12, "build"))
    with pytest.raises(Problem, match="a session named build exists already") as taken:
        store.sessions.save(make_session("s-2", "a" * 12, "build"))
    assert taken.value.code is Code.ALREADY_EXISTS
    with pytest.raises(Problem, match="is gone") as gone:
        store.sessions.save(make_session("s-3", "c" * 12, "build"))
    assert gone.value.code is Code.NOT_FOUND
    assert [session.id for session in store.sessions.list()] == ["s-1"]
