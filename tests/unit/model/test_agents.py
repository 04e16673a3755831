"""[agents.NAME] of config.toml: what it means and what is refused, with line and key."""

import pytest

from banger.base.problem import Problem
from banger.model.agents import get_agent_keys, render_serve, settle_agents
from banger.model.config import parse_config


def settle(text=""):
    return settle_agents(parse_config(text, file="c.toml").agents)


def test_opencode_is_known_without_a_word():
    keys = settle()["opencode"]
    assert keys.command == ("opencode",)
    assert render_serve(keys) == ("opencode", "serve", "--hostname", "0.0.0.0", "--port", "4096")
    assert keys.program == "opencode"


def test_a_key_that_is_configured_replaces_the_built_in_one_alone():
    keys = settle('[agents.opencode]\nport = 5000\nenv = ["MY_KEY"]\n')["opencode"]
    assert render_serve(keys)[-1] == "5000"
    assert keys.env == ("MY_KEY",)
    assert keys.program == "opencode"


def test_an_install_command_takes_the_place_of_the_built_in_program():
    keys = settle('[agents.opencode]\ninstall = ["npm", "install", "-g", "opencode-ai"]\n')["opencode"]
    assert keys.program is None
    assert keys.install[0] == "npm"


def test_another_agent_is_known_beside_it():
    agents = settle(
        '[agents.claude]\ncommand = ["claude"]\ninstall = ["npm", "i"]\nenv_file = "~/claude.env"\n'
    )
    assert list(agents) == ["claude", "opencode"]
    with pytest.raises(Problem, match="no agent 'clod'") as caught:
        get_agent_keys(agents, "clod")
    assert "claude, opencode" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("[agents.claude]\n", 1, "command: an agent needs a command"),
        ('[agents.a]\ncommand = ["x"]\nprot = 3\n', 3, "prot: is no key"),
        ('[agents.a]\ncommand = "x"\n', 2, "command: expected"),
        ('[agents.a]\ncommand = [""]\n', 2, "command: an agent needs a command"),
        ("[agents]\nx = 3\n", 2, "x: expected"),
        ("agents = 3\n", 1, "agents: expected"),
        ('[agents."A B"]\ncommand = ["x"]\n', 1, "'A B' is no name of an agent"),
        (
            '[agents.a]\ncommand = ["x"]\nport = 1\n[agents.b]\ncommand = ["y"]\nport = 99999\n',
            6,
            "port: expected",
        ),
        ('[agents.a]\ncommand = ["x"]\nserve = ["x", "{port}"]\n', 3, "serve: it has {port}"),
        ('[agents.a]\ncommand = ["x"]\nprogram = "nope"\n', 3, "program: 'nope' is no program"),
        (
            '[agents.a]\ncommand = ["x"]\nprogram = "opencode"\ninstall = ["y"]\n',
            4,
            "install: program and install",
        ),
        ('[agents.a]\ncommand = ["x"]\nenv_file = "here"\n', 3, "env_file: 'here' is neither"),
    ],
)
def test_what_is_wrong_is_refused_with_its_line(text, line, words):
    with pytest.raises(Problem) as caught:
        settle(text)
    assert caught.value.brief.startswith(f"c.toml:{line}: ")
    assert words in caught.value.brief
    assert caught.value.hint


def test_a_value_among_the_names_of_variables_is_refused_and_not_shown():
    with pytest.raises(Problem) as caught:
        settle('[agents.a]\ncommand = ["x"]\nenv = ["API_KEY=sk-12345"]\n')
    assert "API_KEY=…" in caught.value.brief
    assert "12345" not in f"{caught.value.brief} {caught.value.hint} {caught.value.detail}"
