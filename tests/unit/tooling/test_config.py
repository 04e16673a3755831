"""[tooling] of config.toml."""

import pytest

from banger.base.problem import Problem
from banger.model.config import parse_config


def parse(text):
    return parse_config(text, file="c.toml").tooling


def test_defaults():
    assert (parse("").enabled, parse("").timeout_s, parse("").environment) == (True, 900, {})


def test_good_values_are_taken():
    keys = parse(
        '[tooling]\nenabled = false\ntimeout = "1h"\nenvironment = { MISE_NODE_MIRROR_URL = "http://a/" }\n'
    )
    assert (keys.enabled, keys.timeout_s, keys.environment) == (
        False,
        3600,
        {"MISE_NODE_MIRROR_URL": "http://a/"},
    )
    assert parse("[tooling.environment]\nhttps_proxy = 'http://10.0.2.2:8080'\n").environment


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("[tooling]\nenabled = 'no'", "c.toml:2: enabled"),
        ("[tooling]\ntimeout = 10", "c.toml:2: timeout"),
        ("[tooling]\ntimeout = '0s'", "c.toml:2: timeout: '0s' is no time"),
        ("[tooling]\ntimeout = '25h'", "c.toml:2: timeout: '25h' is no time"),
        ("[tooling]\ntimeout = 'soon'", "c.toml:2: timeout: 'soon' is not a duration"),
        ("[tooling]\nenvironment = ['A=1']", "c.toml:2: environment"),
        ("[tooling]\nenvironment = { 'A B' = '1' }", "c.toml:2: environment: 'A B' is not the name"),
        (
            "[tooling]\nenvironment = { MISE_DATA_DIR = '/x' }",
            "c.toml:2: environment: MISE_DATA_DIR is set by banger",
        ),
        ("[tooling]\nenvironment = { PATH = '/x' }", "c.toml:2: environment: PATH is set by banger"),
        ('[tooling]\nenvironment = { A = "1\\n2" }', "c.toml:2: environment: the value of A is not one line"),
        ("[tooling]\nmirror = 'x'", "c.toml:2: mirror: is no key"),
        ("tooling = true", "c.toml:1: tooling"),
    ],
)
def test_bad_keys_and_values_name_file_line_and_key(text, where):
    with pytest.raises(Problem) as caught:
        parse(text)
    assert caught.value.brief.startswith(where)
    assert caught.value.hint
