"""docs/tutorial.md as a new user goes through it: every block, in order, by a shell, as it is printed."""

import re
import subprocess
import sys
from pathlib import Path

from tests.support.banger import ROOT, Banger

_BLOCKS = re.compile(r"^```\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_SAID = (
    "Linux ",
    "42\n",
    "hello\n",
    "all is well\n",
    " M notes\n",
    "A report\n",
    "from inside\n",
    "1\n2\n3\n",
)


def test_every_command_does_what_the_tutorial_says(banger: Banger, tmp_path: Path):
    command = tmp_path / "bin" / "banger"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m banger.cli "$@"\n')
    command.chmod(0o755)
    blocks = _BLOCKS.findall((ROOT / "docs" / "tutorial.md").read_text())
    environment = {**banger.environment, "PATH": f"{command.parent}:{banger.environment['PATH']}"}
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", "\n".join(blocks)],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    at = 0
    for words in _SAID:
        at = done.stdout.find(words, at)
        assert at >= 0, (words, done.stdout)
    assert banger.leftovers() == []
