"""What real files come to. Each row is content as it is found in repositories."""

import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banger.model.tooling.found import BACKEND, NAME, VERSION
from banger.model.tooling.plan import CONTENT_MAX_BYTES, FILES, TOOLS_MAX, plan_tools
from banger.model.tooling.ranges import Range


def plan(files, subdirectory=""):
    return plan_tools({name: text.encode() for name, text in files.items()}, subdirectory=subdirectory)


def tools(files, subdirectory=""):
    return [f"{tool.name}@{tool.version}" for tool in plan(files, subdirectory).tools]


ONE_FILE = [
    (".tool-versions", "nodejs 20.11.1\nerlang 26.2 25.3  # two\n", ["node@20.11.1", "erlang@26.2", "erlang@25.3"]),
    (".tool-versions", "golang 1.22.1\npython 3.12.2 system\n", ["go@1.22.1", "python@3.12.2"]),
    ("mise.toml", '[tools]\nnode = "22"\npython = ["3.12", "3.11"]\n', ["node@22", "python@3.12", "python@3.11"]),
    (".mise.toml", '[tools]\nrust = {version = "1.78", profile = "minimal"}\n', ["rust@1.78"]),
    ("mise.toml", '[tools]\n"npm:prettier" = "3"\n"aqua:cli/cli" = "latest"\n',
     ["npm:prettier@3", "aqua:cli/cli@latest"]),
    (".nvmrc", "v20.11.1\n", ["node@20.11.1"]),
    (".nvmrc", "lts/*\n", ["node@lts"]),
    (".nvmrc", "lts/iron\n", ["node@20"]),
    (".nvmrc", "# pinned\n18\n", ["node@18"]),
    (".nvmrc", "16.x", ["node@16"]),
    (".node-version", "22.3.0\r\n", ["node@22.3.0"]),
    (".bun-version", "1.1.4\n", ["bun@1.1.4"]),
    ("package.json", '{"engines": {"node": ">=18 <21"}}', ["node@20"]),
    ("package.json", '{"engines": {"node": "^18.17.0 || >=20.5.0"}}', ["node@20"]),
    ("package.json", '{"engines": {"node": ">=18.17", "npm": ">=9", "pnpm": "^8"}}', ["node@18", "pnpm@8"]),
    ("package.json", '{"engines": {"node": "*"}}', ["node@lts"]),
    ("package.json", '{"volta": {"node": "20.9.0", "yarn": "4.0.2"}}', ["node@20.9.0", "yarn@4.0.2"]),
    ("package.json", '{"packageManager": "pnpm@9.1.0+sha512.67f5879916a9"}', ["pnpm@9.1.0"]),
    ("package.json", '{"packageManager": "npm@10.2.0"}', []),
    ("package.json", '{"devEngines": {"runtime": {"name": "node", "version": ">=22"}}}', ["node@22"]),
    ("package.json", '{"name": "plain"}', []),
    ("go.mod", "module example.org/a\n\ngo 1.22\n\nrequire (\n\tgolang.org/x/sys v0.1.0 // indirect\n)\n",
     ["go@1.22"]),
    ("go.mod", "module a\ngo 1.21.0\ntoolchain go1.22.3\n", ["go@1.22.3"]),
    ("go.mod", "module a\ngo 1.23.4 // needed\ntoolchain default\n", ["go@1.23.4"]),
    ("pyproject.toml", '[project]\nname = "a"\nrequires-python = ">=3.11"\n', ["python@3.11"]),
    ("pyproject.toml", '[project]\nrequires-python = ">=3.8,<3.12"\n', ["python@3.11"]),
    ("pyproject.toml", '[project]\nrequires-python = ">=3.9, !=3.9.1, <4"\n', ["python@3.9"]),
    ("pyproject.toml", '[project]\nrequires-python = "~=3.10"\n', ["python@3.10"]),
    ("pyproject.toml", '[project]\nrequires-python = "==3.12.*"\n', ["python@3.12"]),
    ("pyproject.toml", '[tool.poetry.dependencies]\npython = "^3.11"\n', ["python@3.11"]),
    (".python-version", "3.12.1\n3.11.7\n", ["python@3.12.1", "python@3.11.7"]),
    (".python-version", "pypy3.10-7.3.15\n", ["python@pypy3.10-7.3.15"]),
    (".python-version", "my-virtualenv\n", []),
    (".python-version", "cpython-3.13\n", ["python@3.13"]),
    ("Pipfile", '[requires]\npython_version = "3.9"\n', ["python@3.9"]),
    ("runtime.txt", "python-3.11.4\n", ["python@3.11.4"]),
    ("rust-toolchain.toml", '[toolchain]\nchannel = "1.75.0"\ncomponents = ["clippy"]\n', ["rust@1.75.0"]),
    ("rust-toolchain", "nightly-2024-02-01\n", ["rust@nightly-2024-02-01"]),
    ("rust-toolchain", '[toolchain]\nchannel = "stable"\n', ["rust@stable"]),
    ("Cargo.toml", '[package]\nname = "a"\nrust-version = "1.70"\n', ["rust@1.70"]),
    ("Cargo.toml", '[workspace]\nmembers = ["a"]\n[workspace.package]\nrust-version = "1.74.1"\n', ["rust@1.74"]),
    ("Cargo.toml", '[package]\nname = "a"\nrust-version = { workspace = true }\n', ["rust@stable"]),
    (".java-version", "17\n", ["java@temurin-17"]),
    (".java-version", "1.8\n", ["java@temurin-8"]),
    (".java-version", "temurin64-17.0.9\n", ["java@temurin-17.0.9"]),
    (".java-version", "openjdk64-1.8\n", ["java@openjdk-8"]),
    (".sdkmanrc", "# use sdk env\njava=21.0.2-tem\ngradle=8.6\n", ["java@temurin-21.0.2", "gradle@8.6"]),
    (".sdkmanrc", "java=17.0.10-amzn\n", ["java@corretto-17.0.10"]),
    ("pom.xml", "<project><properties>\n<java.version>17</java.version></properties></project>", ["java@temurin-17"]),
    ("pom.xml", "<maven.compiler.source>${v}</maven.compiler.source><release> 11 </release>", ["java@temurin-11"]),
    ("build.gradle", "java { toolchain { languageVersion = JavaLanguageVersion.of(21) } }", ["java@temurin-21"]),
    ("build.gradle.kts", "kotlin { jvmToolchain(17) }", ["java@temurin-17"]),
    ("build.gradle", "sourceCompatibility = JavaVersion.VERSION_1_8\n", ["java@temurin-8"]),
    (".ruby-version", "ruby-3.2.2\n", ["ruby@3.2.2"]),
    (".ruby-version", "jruby-9.4.5.0\n", ["ruby@jruby-9.4.5.0"]),
    ("Gemfile", 'source "https://gems.example.org"\nruby "3.3.0"\ngem "rails"\n', ["ruby@3.3.0"]),
    ("Gemfile", "ruby '>= 3.1', '< 3.4'\n", ["ruby@3.3"]),
    ("Gemfile", "ruby '~> 3.2'\n", ["ruby@3.2"]),
    ("Gemfile", 'ruby file: ".ruby-version"\n', []),
    ("composer.json", '{"require": {"php": "^8.1"}}', ["php@8.1"]),
    ("composer.json", '{"require": {"php": ">=7.4|~8.0"}, "config": {"platform": {"php": "8.2.1"}}}', ["php@8.2.1"]),
    ("global.json", '{"sdk": {"version": "8.0.100", /* or newer */ "rollForward": "latestFeature",}}',
     ["dotnet@8.0.100"]),
    (".terraform-version", "1.7.4\n", ["terraform@1.7.4"]),
    (".terraform-version", "latest:^1.5\n", []),
    (".opentofu-version", "1.8.0", ["opentofu@1.8.0"]),
    ("deno.json", "{}", ["deno@latest"]),
    ("bun.lockb", "\x00\x01", ["bun@latest"]),
    (".devcontainer/devcontainer.json",
     '{ // comment\n"image": "images.example.org/devcontainers/python:1-3.12-bullseye",}', ["python@3.12"]),
    (".devcontainer.json", '{"image": "images.example.org/devcontainers/typescript-node:1-20-bookworm"}', ["node@20"]),
    (".devcontainer.json", '{"image": "images.example.org/devcontainers/rust:1"}', ["rust@stable"]),
    (".devcontainer.json", '{"image": "golang:1.22-alpine"}', ["go@1.22"]),
    (".devcontainer.json", '{"image": "images.example.org/devcontainers/base:ubuntu", "features": {'
     '"images.example.org/devcontainers/features/node:1": {"version": "20"}, '
     '"images.example.org/devcontainers/features/java:1": {"version": "17"}, '
     '"images.example.org/devcontainers/features/go:1": {}, '
     '"images.example.org/devcontainers/features/python:1": {"version": "os-provided"}}}',
     ["node@20", "java@temurin-17", "go@latest"]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "expected"), ONE_FILE)
def test_a_file_comes_to_its_tools(name, text, expected):
    assert tools({name: text}) == expected


def test_a_plan_says_where_each_version_was_read():
    found = plan({"package.json": '{\n  "name": "a",\n  "engines": {\n    "node": "^20.3"\n  }\n}'})
    (tool,) = found.tools
    assert (tool.file, tool.line, tool.written, tool.version) == ("package.json", 4, "^20.3", "20")
    assert found.warnings == ()


def test_a_manager_of_all_tools_is_believed_before_a_range_and_agreement_is_silent():
    found = plan({"package.json": '{"engines": {"node": ">=18"}}', ".tool-versions": "nodejs 20.11.1\n"})
    assert [tool.version for tool in found.tools] == ["20.11.1"]
    assert found.warnings == ()


def test_files_that_disagree_are_told_with_both():
    found = plan({".nvmrc": "16.20.0\n", "package.json": '{"engines": {"node": ">=18"}}'})
    assert [tool.version for tool in found.tools] == ["16.20.0"]
    (warning,) = found.warnings
    assert (warning.file, warning.line) == ("package.json", 1)
    assert warning.text == "node >=18 is not used: .nvmrc says 16.20.0"


def test_the_subdirectory_that_is_worked_in_comes_first():
    files = {".nvmrc": "18", "web/.nvmrc": "20", "api/.nvmrc": "16"}
    assert tools(files, "web") == ["node@20"]
    assert tools(files) == ["node@18"]
    assert [warning.file for warning in plan(files, "web").warnings] == [".nvmrc"]


def test_a_lock_file_wants_bun_only_if_nothing_names_a_version():
    assert tools({"bun.lock": "{}", "package.json": '{"packageManager": "bun@1.1.0"}'}) == ["bun@1.1.0"]
    assert plan({"bun.lock": "{}", ".bun-version": "1.0.0"}).warnings == ()


MALFORMED = [
    ("package.json", "{", "it is no JSON"),
    ("package.json", "[1]", "it is no JSON object"),
    ("package.json", "[" * 100_000, "it is nested too deeply"),
    ("mise.toml", "[tools", "it is no TOML"),
    ("mise.toml", "a = " + "[" * 50_000, "it is no TOML"),
    (".nvmrc", "", "there is no version of node in it"),
    (".nvmrc", "--help", "is no version of node"),
    (".tool-versions", "node $(reboot)\n", "is no version of node"),
    (".tool-versions", "node ../../../etc\n", "is no version of node"),
    (".tool-versions", "-n 1\n", "is no name of a tool"),
    (".tool-versions", "asdf:https://example.org/x 1\n", "is no name of a tool"),
    (".tool-versions", "aqua:../../x 1\n", "is no name of a tool"),
    (".tool-versions", "node ref:main\n", "none that can be downloaded"),
    ("mise.toml", '[tools]\nnode = "{{ exec(command=1) }}"\n', "is no version of node"),
    ("mise.toml", '[env]\nA = "1"\n[hooks]\nenter = "x"\n', "[env] and [hooks] is not used"),
    ("package.json", '{"engines": {"node": "around 18"}}', "is no range"),
    ("package.json", '{"engines": {"node": ">=20 <18"}}', "no version of node is in"),
    ("package.json", '{"packageManager": "pnpm"}', "is not NAME@VERSION"),
    ("package.json", '{"volta": {"extends": "../package.json"}}', "is not read"),
    (".devcontainer.json", '{"image": "example.org/ours:3"}', "no tool is known for the image"),
    (".devcontainer.json", '{"build": {"dockerfile": "D"}, "postCreateCommand": "x"}', "is not run"),
]


@pytest.mark.parametrize(("name", "text", "words"), MALFORMED)
def test_what_cannot_be_taken_is_a_warning_that_names_the_file(name, text, words):
    found = plan({name: text})
    assert found.tools == ()
    assert {warning.file for warning in found.warnings} == {name}
    assert any(words in warning.text for warning in found.warnings), found.warnings


def test_a_file_that_is_too_large_or_no_text_is_not_read():
    found = plan_tools({".nvmrc": b"1" * (CONTENT_MAX_BYTES + 1), ".ruby-version": b"\xff\xfe3\0"})
    assert found.tools == ()
    assert [warning.text for warning in found.warnings] == [
        "it is larger than 256 KiB, and is not read",
        "it is no UTF-8",
    ]


def test_a_plan_is_bounded():
    found = plan({".tool-versions": "".join(f"tool{number} 1\n" for number in range(1000))})
    assert len(found.tools) == TOOLS_MAX
    assert "more than" in found.warnings[-1].text


def test_what_is_shown_of_a_file_is_one_short_line_without_control_characters():
    (warning,) = plan({".nvmrc": "\x1b]0;title\x07" + "a" * 500}).warnings
    assert warning.text.isprintable()
    assert len(warning.text) < 150


_NUMBERS = st.lists(st.integers(0, 40), min_size=1, max_size=3).map(lambda n: ".".join(map(str, n)))
_OPERATORS = st.sampled_from(["", ">=", ">", "<", "<=", "^", "~", "~>", "~=", "==", "!="])
_RANGES = st.lists(
    st.lists(st.builds("{}{}".format, _OPERATORS, _NUMBERS), min_size=1, max_size=3).map(" ".join),
    min_size=1,
    max_size=3,
).map(" || ".join)


@given(_RANGES, st.sampled_from(["node", "python"]))
def test_a_chosen_line_has_versions_of_the_range(text, tool):
    found = Range.parse(text)
    assert found is not None
    chosen = found.choose(tool)
    line = Range.of_version(chosen) if chosen else None
    assert chosen is None or line is None or line.agrees(found), chosen


_PIECES = st.sampled_from(
    [
        '"',
        "{",
        "}",
        "[",
        "]",
        "\n",
        "=",
        ":",
        "node",
        "tools",
        "engines",
        "version",
        "1.2",
        "^",
        "/*",
        "//",
        ",",
        "\\",
    ]
)
_TEXTS = st.one_of(
    st.binary(max_size=200), st.text(max_size=200).map(lambda t: t.encode("utf-8", "surrogatepass"))
)
_ALMOST = st.lists(_PIECES, max_size=60).map(lambda pieces: "".join(pieces).encode())


@given(st.dictionaries(st.sampled_from(FILES), st.one_of(_TEXTS, _ALMOST), max_size=6))
def test_no_content_fails_and_whatever_is_planned_is_of_the_patterns(contents):
    found = plan_tools(contents)
    for tool in found.tools:
        assert NAME.fullmatch(tool.name) or BACKEND.fullmatch(tool.name)
        assert VERSION.fullmatch(tool.version)
        assert tool.written.isprintable()
    assert all(warning.text.isprintable() and warning.file in FILES for warning in found.warnings)


_KEYS = [
    "engines",
    "node",
    "volta",
    "extends",
    "packageManager",
    "devEngines",
    "runtime",
    "name",
    "version",
    "image",
    "features",
    "build",
    "sdk",
    "require",
    "php",
    "config",
    "platform",
    "x/node:1",
]
_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(_KEYS),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.sampled_from([name for name in FILES if name.endswith(".json")]), _JSON)
def test_no_shape_of_json_fails(name, value):
    plan_tools(
        {
            name: json.dumps(
                {"engines": value, "image": value, **(value if isinstance(value, dict) else {})}
            ).encode()
        }
    )


HEAVY = [
    ("package.json", "/*" * 100_000),
    (".devcontainer.json", '{"a": "' + '\\"' * 80_000),
    (".devcontainer.json", "{" + "/*" * 100_000),
    (".devcontainer.json", "," * 200_000),
    (".devcontainer.json", '{"image": "' + "a/" * 100_000 + '!"}'),
    (".java-version", "a-1" * 80_000 + "!"),
    ("build.gradle", "sourceCompatibility" + " " * 200_000),
    ("build.gradle", "sourceCompatibility " * 13_000),
    ("pom.xml", "<release>" * 28_000),
    ("pom.xml", "<release>" + " " * 200_000),
    ("Gemfile", "ruby " + "'1'," * 60_000),
    (".tool-versions", "a " * 100_000),
]


@pytest.mark.parametrize(("name", "text"), HEAVY)
def test_no_content_takes_long(name, text):
    assert len(text) <= CONTENT_MAX_BYTES
    began = time.process_time()
    plan({name: text})
    assert time.process_time() - began < 5


def test_the_reference_names_every_file():
    page = (Path(__file__).parents[3] / "docs" / "reference" / "tools.md").read_text()
    assert [name for name in FILES if f"`{name}`" not in page] == []
