import pytest

from banger.base.problem import Code, Problem
from banger.model.config import Config, parse_config
from banger.model.storage import StorageDriver


def test_an_empty_file_is_all_defaults():
    assert parse_config("", file="c.toml") == Config()


def test_sizes_may_be_written_as_for_the_flags():
    config = parse_config('[vm_defaults]\nvcpu = 2\nmemory = "2G"\ndisk_size = 512\n', file="c.toml")
    asked = config.asked_sizes
    assert (asked.vcpus, asked.memory_mib, asked.disk_size_bytes) == (2, 2048, 512 * 1024**2)


def test_what_firecracker_and_root_disks_are_told():
    text = """
        vmm = "firecracker"
        firecracker_bin = "/opt/firecracker"
        jailer_enabled = false
        storage_driver = "dm-snapshot"
        snapshot_limit = "4G"
        """
    config = parse_config(text, file="c.toml")
    assert (config.vmm, config.firecracker_bin, config.jailer_enabled) == (
        "firecracker",
        "/opt/firecracker",
        False,
    )
    assert (config.storage_driver, config.snapshot_limit_bytes) == ("dm-snapshot", 4 * 1024**3)
    assert (Config().jailer_enabled, Config().storage_driver, Config().snapshot_limit_bytes) == (
        True,
        "auto",
        None,
    )


def test_every_driver_may_be_named():
    for driver in StorageDriver:
        assert parse_config(f'storage_driver = "{driver.value}"', file="c").storage_driver == driver.value


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("\nnonsense = 1\n", "c.toml:2: nonsense"),
        ('log_level = "loud"', "c.toml:1: log_level"),
        ('vmm = "xen"', "c.toml:1: vmm"),
        ("[vm_defaults]\nvcpu = 'two'", "c.toml:2: vcpu"),
        ("[vm_defaults]\n\nmemory = '2X'", "c.toml:3: memory"),
        ("[vm_defaults]\ncpus = 2", "c.toml:2: cpus"),
        ("firecracker_bin = 'firecracker'", "c.toml:1: firecracker_bin"),
        ("\njailer_bin = '~/jailer'", "c.toml:2: jailer_bin"),
        ("jailer_enabled = 'no'", "c.toml:1: jailer_enabled"),
        ("storage_driver = 'lvm'", "c.toml:1: storage_driver"),
        ("storage_driver = 'snapshot'", "c.toml:1: storage_driver"),
        ("snapshot_limit = '4X'", "c.toml:1: snapshot_limit: '4X' is not a size"),
        ("snapshot_limit = 63", "c.toml:1: snapshot_limit: 63 MiB"),
        ("snapshot_limit = '5T'", "c.toml:1: snapshot_limit"),
        ("snapshot_limit = -1", "c.toml:1: snapshot_limit"),
        ("\nqemu_bin = 'qemu-system-x86_64'", "c.toml:2: qemu_bin"),
        ("qemu_bin = ''", "c.toml:1: qemu_bin"),
        ("ssh_key_path = 'keys/id'", "c.toml:1: ssh_key_path"),
        ("ssh_key_path = ''", "c.toml:1: ssh_key_path"),
        ("ssh_key_path = '~nobody-there/id'", "c.toml:1: ssh_key_path"),
        ("default_image = '../etc'", "c.toml:1: default_image"),
        ("# default_kernel = 'x'\ndefault_kernel = 'Big One'", "c.toml:2: default_kernel"),
        ("[vm_defaults]\nvcpu = 0", "c.toml:2: vcpu: 0 vCPUs"),
        ("[vm_defaults]\nvcpu = 33", "c.toml:2: vcpu"),
        ("[vm_defaults]\nmemory = '63M'", "c.toml:2: memory: 63 MiB"),
        ("[vm_defaults]\nmemory = -1", "c.toml:2: memory"),
        ("[vm_defaults]\ndisk_size = '1M'", "c.toml:2: disk_size"),
        ("[vm_defaults]\nvcpu = 1\nsystem_overlay_size = '17T'", "c.toml:3: system_overlay_size"),
        ("vm_defaults = { vcpu = 99 }", "c.toml:1: vcpu"),
        ("log_level = 'info'\nvm_defaults.vcpu = 99", "c.toml:2: vcpu"),
        ("log_level = 'info'\nvm_defaults = 3", "c.toml:2: vm_defaults"),
    ],
)
def test_bad_keys_and_values_name_file_line_and_key(text, where):
    with pytest.raises(Problem) as caught:
        parse_config(text, file="c.toml")
    problem = caught.value
    assert problem.code is Code.BAD_REQUEST
    assert problem.brief.startswith(where)
    assert "docs/" not in problem.hint
    assert "\n" not in problem.brief + problem.hint


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("imgae = 1", "default_image"),
        ("[vm_defaults]\ncpus = 2", "[vm_defaults] has vcpu, memory"),
        ("log_level = 3", 'for example log_level = "info"'),
        ("[vm_defaults]\nvcpu = 'two'", "for example vcpu = 2"),
        ("[vm_defaults]\nmemory = '1M'", "64M to 1T"),
        ("vm_defaults = 3", "[vm_defaults]"),
    ],
)
def test_the_hint_says_what_would_do(text, hint):
    with pytest.raises(Problem) as caught:
        parse_config(text, file="c.toml")
    assert hint in caught.value.hint


def test_good_values_of_every_key_are_taken():
    config = parse_config(
        """
        log_level = "debug"
        vmm = "qemu"
        qemu_bin = "/usr/bin/qemu-system-x86_64"
        ssh_key_path = "~/.ssh/banger"
        default_image = "dev"
        default_kernel = "small"
        [vm_defaults]
        vcpu = 32
        memory = "1T"
        disk_size = "16T"
        system_overlay_size = 64
        """,
        file="c.toml",
    )
    assert (config.vmm, config.default_image) == ("qemu", "dev")
    assert config.asked_sizes == (32, 1024**2, 16 * 1024**4, 64 * 1024**2)


def test_what_is_no_toml_says_where():
    with pytest.raises(Problem, match=r"c\.toml.*line 1"):
        parse_config("= 3", file="c.toml")


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ('netwrok = "user"', "did you mean network? there are log_level"),
        ("[vm_defaults]\nmemroy = 1", "did you mean memory? [vm_defaults] has vcpu"),
        ("quite_another = 1", "there are log_level"),
    ],
)
def test_a_key_that_is_almost_one_comes_first(text, hint):
    with pytest.raises(Problem) as refused:
        parse_config(text, file="config.toml")
    assert refused.value.hint.startswith(hint)
