"""What is read out of strace's lines."""

from tools.bench.trace import Sync, parse_trace

JAILED = """\
300 vfork( <unfinished ...>
310 execve("/nonexistent", ["x"], 0x7ffc) = -1 ENOENT (No such file or directory)
310 execve("/usr/sbin/jailer", ["jailer"], 0x7ffc /* 3 vars */ <unfinished ...>
300 <... vfork resumed>) = 310
310 <... execve resumed>) = 0
310 execve("/firecracker", ["/firecracker"], 0x7ffc /* 0 vars */) = 0
301 clone3({flags=CLONE_VM|CLONE_FS|CLONE_THREAD, child_tid=0x7f}, 88) = 302
310 clone3({flags=CLONE_VM|CLONE_FS|CLONE_THREAD, child_tid=0x7f} <unfinished ...>
311 fsync(9</dev/mapper/disk>) = 0
310 <... clone3 resumed> => {parent_tid=[311]}, 88) = 311
302 fdatasync(12</home/alice/store.db-wal>) = 0 <0.002113>
300 linkat(AT_FDCWD, "a", AT_FDCWD, "b", 0) = 0
301 fsync(13</home/alice/x> <unfinished ...>
301 <... fsync resumed>) = 0
301 fsync(14) = -1 EIO (Input/output error)
310 --- SIGCHLD {si_signo=SIGCHLD} ---
310 +++ exited with 0 +++
"""


def test_a_process_is_every_program_that_it_was_and_threads_are_none():
    assert parse_trace(JAILED).processes == [("jailer", "firecracker")]


def test_a_sync_has_its_file_and_the_program_whose_thread_made_it():
    assert parse_trace(JAILED).syncs == [
        Sync("fsync", "/dev/mapper/disk", "firecracker"),
        Sync("fdatasync", "/home/alice/store.db-wal", ""),
        Sync("fsync", "/home/alice/x", ""),
    ]


def test_a_child_that_runs_no_other_program_is_not_taken_for_the_service():
    traced = parse_trace("300 fork() = 310\n310 sync() = 0\n")
    assert traced.processes == [("no program",)]
    assert traced.syncs == [Sync("sync", "", "no program")]
