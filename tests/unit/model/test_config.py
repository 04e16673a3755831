import pytest

from banger.base.problem import Problem
from banger.model.config import Config, parse_config


def test_an_empty_file_is_all_defaults():
    assert parse_config("", file="c.toml") == Config()


def test_sizes_may_be_written_as_for_the_flags():
    config = parse_config('[vm_defaults]\nvcpu = 2\nmemory = "2G"\ndisk_size = 512\n', file="c.toml")
    asked = config.asked_sizes
    assert (asked.vcpus, asked.memory_mib, asked.disk_size_bytes) == (2, 2048, 512 * 1024**2)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("\nnonsense = 1\n", "c.toml:2: nonsense"),
        ('log_level = "loud"', "c.toml:1: log_level"),
        ('vmm = "xen"', "c.toml:1: vmm"),
        ("[vm_defaults]\nvcpu = 'two'", "c.toml:2: vcpu"),
        ("[vm_defaults]\n\nmemory = '2X'", "c.toml:3: memory"),
        ("[vm_defaults]\ncpus = 2", "c.toml:2: cpus"),
    ],
)
def test_bad_keys_and_values_name_file_line_and_key(text, where):
    with pytest.raises(Problem) as caught:
        parse_config(text, file="c.toml")
    assert caught.value.brief.startswith(where)


def test_what_is_no_toml_says_where():
    with pytest.raises(Problem, match=r"c\.toml.*line 1"):
        parse_config("= 3", file="c.toml")
