"""The keys of the life cycle: limits, files to copy, opencode, intervals."""

import pytest

from banger.base.problem import Code, Problem
from banger.base.units import GIB, MIB
from banger.model.config import Config, FileSync, Opencode, parse_config
from banger.model.policy import Limits


def parse(text: str) -> Config:
    return parse_config(text, file="c.toml")


def refuse(text: str) -> Problem:
    with pytest.raises(Problem) as caught:
        parse(text)
    assert caught.value.code is Code.BAD_REQUEST
    assert "\n" not in caught.value.brief + caught.value.hint
    return caught.value


def test_defaults():
    config = Config()
    assert (config.stats_poll_interval_s, config.auto_stop_stale_after_s) == (10, None)
    assert (config.git_identity, config.file_sync, config.opencode) == (True, (), Opencode())
    assert config.opencode == Opencode(wait=False, port=4096)
    assert config.allowed == Limits()


def test_good_values_of_every_key_are_taken():
    config = parse(
        """
        stats_poll_interval = "1m30s"
        auto_stop_stale_after = "2h"
        git_identity = false
        [limits]
        vms = 50
        running_vms = 10
        vcpus_per_vm = 8
        memory_per_vm = "8G"
        disk_per_vm = "40G"
        vcpus_total = 32
        memory_total = "24G"
        disk_total = "500G"
        memory_overcommit = 1
        disk_overcommit = 2.5
        disk_reserve = 0
        [[file_sync]]
        host = "~/.gitconfig"
        guest = "~/.gitconfig"
        [[file_sync]]
        host = "/etc/hosts"
        guest = "/etc/hosts.host"
        mode = "644"
        [opencode]
        wait = true
        port = 5000
        """
    )
    assert (config.stats_poll_interval_s, config.auto_stop_stale_after_s) == (90, 7200)
    assert not config.git_identity
    assert config.allowed == Limits(
        vms=50,
        running_vms=10,
        vcpus_per_vm=8,
        memory_per_vm_bytes=8 * GIB,
        disk_per_vm_bytes=40 * GIB,
        vcpus_total=32,
        memory_total_bytes=24 * GIB,
        disk_total_bytes=500 * GIB,
        memory_overcommit=1,
        disk_overcommit=2.5,
        disk_reserve_bytes=0,
    )
    assert config.file_sync[0] == FileSync(host="~/.gitconfig", guest="~/.gitconfig", mode="0600")
    assert [each.mode_bits for each in config.file_sync] == [0o600, 0o644]
    assert config.opencode == Opencode(wait=True, port=5000)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("stats_poll_interval = 10", "c.toml:1: stats_poll_interval"),
        ("stats_poll_interval = '10'", "c.toml:1: stats_poll_interval: '10' is not a duration"),
        ("stats_poll_interval = '100ms'", "c.toml:1: stats_poll_interval: '100ms'"),
        ("stats_poll_interval = '2h'", "c.toml:1: stats_poll_interval"),
        ("auto_stop_stale_after = '2 hours'", "c.toml:1: auto_stop_stale_after"),
        ("auto_stop_stale_after = '29s'", "c.toml:1: auto_stop_stale_after: '29s' is too short"),
        ("git_identity = 'me'", "c.toml:1: git_identity"),
        ("[limits]\nvms = 0", "c.toml:2: vms"),
        ("[limits]\nrunning_vms = -1", "c.toml:2: running_vms"),
        ("[limits]\nvcpus_per_vm = 1.5", "c.toml:2: vcpus_per_vm"),
        ("[limits]\nvcpus_total = 'many'", "c.toml:2: vcpus_total"),
        ("[limits]\nmemory_per_vm = '8X'", "c.toml:2: memory_per_vm: '8X' is not a size"),
        ("[limits]\nmemory_per_vm = '63M'", "c.toml:2: memory_per_vm: 63 MiB are less"),
        ("[limits]\ndisk_per_vm = '127M'", "c.toml:2: disk_per_vm: 127 MiB are less"),
        ("[limits]\nmemory_total = true", "c.toml:2: memory_total"),
        ("[limits]\ndisk_total = '-1G'", "c.toml:2: disk_total"),
        ("[limits]\ndisk_reserve = '1Q'", "c.toml:2: disk_reserve"),
        ("[limits]\nmemory_overcommit = 0", "c.toml:2: memory_overcommit"),
        ("[limits]\ndisk_overcommit = 'twice'", "c.toml:2: disk_overcommit"),
        ("[limits]\ndisk_overcommit = nan", "c.toml:2: disk_overcommit"),
        ("[limits]\nmemory = '2G'", "c.toml:2: memory: is no key"),
        ("[vm_defaults]\nmemory = '2G'\n\n[limits]\nmemory = '2G'", "c.toml:5: memory: is no key"),
        ("limits = 3", "c.toml:1: limits"),
        ("limits = { vms = 0 }", "c.toml:1: vms"),
        ("file_sync = 3", "c.toml:1: file_sync"),
        ("[file_sync]\nhost = '/a'", "c.toml:1: file_sync"),
        ("[[file_sync]]\nhost = '/a'", "c.toml:1: file_sync: guest is missing"),
        ("[[file_sync]]\nhost = 'a'\nguest = '/a'", "c.toml:2: host: 'a' is neither absolute"),
        ("[[file_sync]]\nhost = '~bob/a'\nguest = '/a'", "c.toml:2: host"),
        ("[[file_sync]]\nhost = '/a/../b'\nguest = '/a'", "c.toml:2: host: '/a/../b' leads upwards"),
        ("[[file_sync]]\nhost = '/a'\nguest = 'a'", "c.toml:3: guest: 'a' is neither absolute"),
        ("[[file_sync]]\nhost = '/a'\nguest = '~/../etc/passwd'", "c.toml:3: guest"),
        ("[[file_sync]]\nhost = '/a'\nguest = '/etc/'", "c.toml:3: guest: '/etc/' does not name a file"),
        ("[[file_sync]]\nhost = '/a'\nguest = '/'", "c.toml:3: guest"),
        ('[[file_sync]]\nhost = "/a"\nguest = "/a\\u0000b"', "c.toml:3: guest"),
        ("[[file_sync]]\nhost = '/a'\nguest = '/b'\nmode = '888'", "c.toml:4: mode: '888' is no mode"),
        ("[[file_sync]]\nhost = '/a'\nguest = '/b'\nmode = '4755'", "c.toml:4: mode"),
        ("[[file_sync]]\nhost = '/a'\nguest = '/b'\nmode = 600", "c.toml:4: mode"),
        ("[[file_sync]]\nhost = '/a'\nguest = '/b'\nowner = 'me'", "c.toml:4: owner: is no key"),
        ("[opencode]\nwait = 'yes'", "c.toml:2: wait"),
        ("[opencode]\nport = 0", "c.toml:2: port"),
        ("[opencode]\nport = 65536", "c.toml:2: port"),
        ("[opencode]\nhost = 'x'", "c.toml:2: host: is no key"),
        ("auto_stop = '2h'", "c.toml:1: auto_stop: is no key"),
    ],
)
def test_bad_keys_and_values_name_file_line_and_key(text, where):
    assert refuse(text).brief.startswith(where)


def test_a_bad_entry_among_good_ones_is_found():
    good = "[[file_sync]]\nhost = '/a'\nguest = '/b'\nmode = '0600'\n"
    bad = "\n[[file_sync]]\nhost = '/a'\nguest = '/c'\nmode = 'rw'\n"
    assert refuse(good + bad).brief.startswith("c.toml:9: mode: 'rw'")


@pytest.mark.parametrize("again", ["/root/.x", "~/.x", "/root//.x", "//root/./.x"])
def test_a_file_of_the_guest_is_written_once(again):
    first = "[[file_sync]]\nhost = '/a'\nguest = '~/.x'\n"
    text = first + f"[[file_sync]]\nhost = '/b'\nguest = '{again}'\n"
    assert refuse(text).brief.startswith("c.toml:6: guest: ")


def test_defaults_must_keep_the_limits():
    problem = refuse("[limits]\nvcpus_per_vm = 2\n[vm_defaults]\nvcpu = 4\n")
    assert problem.brief.startswith("c.toml:4: vcpu: 4 vCPUs are more than a VM may have here")
    problem = refuse("[limits]\ndisk_per_vm = '1G'\n[vm_defaults]\ndisk_size = '2G'\n")
    assert problem.brief.startswith("c.toml:4: disk_size")


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("[limits]\nmemory = 3", "[limits] has vms, running_vms"),
        ("[opencode]\nhost = 'x'", "[opencode] has wait, port"),
        ("[[file_sync]]\nhost = '/a'\nguest = '/b'\nowner = 'me'", "[[file_sync]] has host, guest, mode"),
        ("[[file_sync]]\nhost = '/a'", "for example guest ="),
        ("file_sync = 3", "it is a table: [[file_sync]]"),
        ("[limits]\nvms = 0", "for example vms = 50"),
        ("auto_stop_stale_after = '1s'", "30s or more"),
    ],
)
def test_the_hint_says_what_would_do(text, hint):
    assert hint in refuse(text).hint


def test_a_limit_of_exactly_the_smallest_vm_will_do():
    config = parse("[limits]\nmemory_per_vm = '64M'\ndisk_per_vm = '128M'\n")
    assert config.allowed.memory_per_vm_bytes == 64 * MIB
