"""Commands that documents show and hints name are commands that the parser takes."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from banger.cli import catalog
from banger.cli.parser import HelpAsked, parse

ROOT = Path(__file__).parents[3]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "docs" / "tutorial.md",
    *sorted((ROOT / "docs" / "how-to").glob("*.md")),
]
_SEPARATORS = {"&&", "|", ";"}
_NAMED = re.compile(rf"\bbanger ((?:{'|'.join(catalog.GROUPS)}) [a-z]+)")


def list_shown(document: Path) -> Iterator[list[str]]:
    """The words after `banger` of every command in a block of the document."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", document.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    for block in (text for language, text in blocks if not language):
        for line in block.splitlines():
            words: list[str] = []
            lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars="&|;")
            lexer.whitespace_split = True
            for word in (*lexer, ";"):
                if word not in _SEPARATORS:
                    words.append(word)
                    continue
                if words[:1] == ["sudo"]:
                    del words[0]
                if words[:1] == ["banger"]:
                    yield words[1:]
                words = []


def list_named() -> Iterator[tuple[str, str]]:
    """Group and command wherever a text of ours names them, with the file. Documentation of the code is left out."""
    for file in sorted((ROOT / "src" / "banger").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                for name in _NAMED.findall(node.value):
                    yield file.name, name


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_in_documents_are_taken(document):
    for words in list_shown(document):
        try:
            parse(words)
        except HelpAsked:
            continue


def test_documents_show_commands():
    assert sum(len(list(list_shown(document))) for document in DOCUMENTS) > 40


def test_commands_in_hints_exist():
    named = list(list_named())
    prose = {"system command"}  # "another banger system command is at work"
    assert [(file, name) for file, name in named if name not in catalog.COMMANDS and name not in prose] == []
    assert len(named) > 100
