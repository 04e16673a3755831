"""The guest agent's C tests: compiled with gcc's sanitizers and run here, the fuzzer's cases included."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.support.session_fuzz import FuzzingHost
from tests.support.session_guests import start_real_place

AGENT_DIR = Path(__file__).resolve().parents[3] / "guest-agent"
SOURCE_DIR = AGENT_DIR / "src"
TEST_DIR = AGENT_DIR / "tests"
FUZZ_CASES = 250_000
SESSION_FRAMES = 3000
FLAGS = (
    "-std=gnu17",
    "-g",
    "-O1",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
    "-Wall",
    "-Wextra",
    "-Werror",
    f"-I{SOURCE_DIR}",
)
CODEC = ("frame", "fields")
CHANNEL = ("channel", "channel_input", "served", "outqueue")
SESSION = (
    "session",
    "sessions",
    "session_input",
    "session_methods",
    "session_readers",
    "scrollback",
    "modes",
)
TREE = (
    *CODEC,
    "tree_tar",
    "tar_writer",
    "tar_sparse",
    "tar_reader",
    "tree_untar",
    "worker",
    *CHANNEL,
    "files",
)
AGENT = (
    *TREE,
    "agent",
    "mux",
    "methods",
    "exec",
    "command",
    "account",
    *SESSION,
    "ports",
    "usage",
    "power",
    "transport",
    "uevents",
    "trace",
)
PROGRAMS = {
    "test_vectors": CODEC,
    "test_config": ("config",),
    "test_tree": TREE,
    "test_agent": AGENT,
    "agent_on_fd": AGENT,
    "test_scrollback": (*CODEC, "scrollback", "modes"),
    "fuzz_parser": CODEC,
}

pytestmark = [
    pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed"),
    pytest.mark.timeout(240),
    pytest.mark.xdist_group("guest_agent_c"),
]


def _compile(source: Path, output: Path, *extra: str) -> Path:
    done = subprocess.run(
        ("gcc", *FLAGS, *extra, str(source), "-o", str(output)),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return output


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every module that a test needs, compiled once."""
    scratch = tmp_path_factory.mktemp("objects")
    names = sorted({name for names in PROGRAMS.values() for name in names})
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        outputs = pool.map(
            lambda name: _compile(SOURCE_DIR / f"{name}.c", scratch / f"{name}.o", "-c"), names
        )
        return dict(zip(names, outputs, strict=True))


def _link(objects: dict[str, Path], scratch: Path, program: str) -> Path:
    modules = [str(objects[name]) for name in PROGRAMS[program]]
    return _compile(TEST_DIR / f"{program}.c", scratch / program, "-DSTANDALONE", *modules)


def _run(objects: dict[str, Path], scratch: Path, program: str, *arguments: str) -> None:
    binary = _link(objects, scratch, program)
    done = subprocess.run(
        (str(binary), *arguments),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-4000:]


def _bytes(item: dict[str, Any], key: str = "hex") -> str:
    zeros = item.get("zeros" if key == "hex" else f"{key}_zeros", 0)
    return f"{item.get(key) or '-'} {zeros}"


def _frame(item: dict[str, Any]) -> str:
    return f"{item['type']} {item['stream']} {item['channel']} {_bytes(item, 'payload')}"


def _field(item: dict[str, Any]) -> str:
    if "number" in item:
        return f"{item['tag']}:{int(item['number']).to_bytes(8, 'little').hex()}"
    return f"{item['tag']}:{item['text'].encode().hex() if 'text' in item else item['hex']}"


def _render_lines(vectors: dict[str, Any]) -> Iterator[str]:
    """vectors.json in the line form that test_vectors.c describes."""
    for item in vectors["frames"]:
        yield f"encode {_frame(item)} = {_bytes(item)}"
        if item["from"] == "host":
            yield from (f"case {item['name']} framed", f"in {_bytes(item)}", f"frame {_frame(item)}", "end")
        else:  # the guest refuses what only a guest may send, and takes for its own what both may
            shared = item["type_name"] in ("DATA", "EOF", "WINDOW")
            outcome = f"frame {_frame(item)}" if shared else "malformed"
            yield from (f"case {item['name']} framed", f"in {_bytes(item)}", outcome, "end")
        if item.get("fields"):
            prefix = {"HELLO": 32, "WELCOME": 32, "OPEN": 2, "CONTROL": 2, "END": 4}.get(item["type_name"], 0)
            yield f"fields {item['payload'][2 * prefix :]} {','.join(map(_field, item['fields']))}"
    for item in vectors["malformed"]:
        if item["from"] != "guest":
            yield from (f"case {item['name']} framed", f"in {_bytes(item)}", "malformed", "end")
    for item in vectors["fields"]:
        if item["fields"]:
            yield f"fields {item['hex']} {','.join(map(_field, item['fields']))}"
    for item in vectors["malformed_fields"]:
        yield f"badfields {item['hex']}"
    for stream in vectors["streams"]:
        yield f"case {stream['name']} {stream['start']}"
        yield from (f"in {_bytes(item)}" for item in stream["input"])
        yield from (
            "malformed" if item == "malformed" else f"frame {_frame(item)}" for item in stream["expect"]
        )
        yield "end"


def test_the_parser_agrees_with_the_golden_vectors(objects: dict[str, Path], tmp_path: Path) -> None:
    vectors = json.loads((AGENT_DIR / "vectors.json").read_text())
    lines = tmp_path / "vectors.txt"
    lines.write_text("\n".join(_render_lines(vectors)) + "\n")
    _run(objects, tmp_path, "test_vectors", str(lines))


def test_the_boot_configuration_is_parsed_strictly(objects: dict[str, Path], tmp_path: Path) -> None:
    _run(objects, tmp_path, "test_config")


def test_trees_round_trip_and_hostile_archives_stay_inside(objects: dict[str, Path], tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    _run(objects, tmp_path, "test_tree", str(scratch))


def test_the_agent_keeps_its_windows_with_real_commands(objects: dict[str, Path], tmp_path: Path) -> None:
    _run(objects, tmp_path, "test_agent")


def test_a_scrollback_forgets_the_oldest_and_restores_modes(objects: dict[str, Path], tmp_path: Path) -> None:
    _run(objects, tmp_path, "test_scrollback")


async def test_sessions_are_clean_under_nonsense(
    objects: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BANGER_TEST_AGENT", str(_link(objects, tmp_path, "agent_on_fd")))
    async with start_real_place() as place:
        host = FuzzingHost(place.take_socket(), "nonsense")
        await host.run(SESSION_FRAMES)
        agent = await place.connect()
        assert (await agent.run(["echo", "well"])).stdout == b"well\n"
        assert len(host.ends) > 3


def test_the_parser_survives_the_fuzzer(objects: dict[str, Path], tmp_path: Path) -> None:
    _run(objects, tmp_path, "fuzz_parser", str(FUZZ_CASES))
