"""The helper as one file: the same bytes everywhere, nothing in it but contract and helper, nothing imported beyond."""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import banger
from banger.installation.helper_archive import digest_build, render_archive

PACKAGE = Path(banger.__file__).parent
PYTHON = "/usr/bin/python3"


@pytest.fixture(scope="module")
def content():
    return render_archive(PACKAGE, PYTHON)


def test_the_bytes_depend_on_the_sources_only(content, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(PACKAGE / "privileged", copy / "privileged")
    shutil.copy(PACKAGE / "__init__.py", copy)  # times are those of now
    assert render_archive(copy, PYTHON) == content
    (copy / "privileged/helper/more.py").write_text("")
    assert digest_build(render_archive(copy, PYTHON)) != digest_build(content)


def test_it_holds_the_helper_and_its_contract_and_nothing_else(content, tmp_path):
    file = tmp_path / "banger-root"
    file.write_bytes(content)
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        assert archive.testzip() is None
    allowed = re.compile(
        r"__main__\.py|banger/__init__\.py|banger/privileged/(__init__|contract/\w+|helper/\w+)\.py"
    )
    assert [name for name in names if not allowed.fullmatch(name)] == []
    assert {"__main__.py", "banger/privileged/helper/__main__.py", "banger/privileged/contract/codec.py"} <= {
        *names
    }
    assert len(names) == len(set(names))
    assert content.startswith(b"#!/usr/bin/python3 -IS\n")


def test_it_imports_nothing_but_itself_and_the_standard_library(content, tmp_path):
    """Every module of it, whether `main` needs it or not, in the interpreter and with the flags it is installed with."""
    file = tmp_path / "banger-root"
    file.write_bytes(content)
    program = (
        "import sys, zipfile, importlib\n"
        f"sys.path.insert(0, {str(file)!r})\n"
        f"names = zipfile.ZipFile({str(file)!r}).namelist()\n"
        "for name in names:\n"
        "    if name != '__main__.py':\n"
        "        importlib.import_module(name.removesuffix('.py').removesuffix('/__init__').replace('/', '.'))\n"
        "for module in sorted(sys.modules.values(), key=lambda each: each.__name__):\n"
        "    print(module.__name__.partition('.')[0], getattr(module, '__file__', None) or '-')\n"
    )
    done = subprocess.run([sys.executable, "-IS", "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        name, path = line.split(maxsplit=1)
        if name == "banger":
            assert path.startswith(str(file)), line
        else:
            assert name in sys.stdlib_module_names | {"__main__"}, line
            assert "site-packages" not in path, line
            assert "dist-packages" not in path, line


@pytest.mark.skipif(not Path(PYTHON).exists(), reason=f"there is no {PYTHON}")
def test_it_runs_as_a_program(content, tmp_path):
    file = tmp_path / "banger-root"
    file.write_bytes(content)
    file.chmod(0o755)
    environment = {"PYTHONPATH": "/nowhere", "PYTHONSTARTUP": "/nowhere"}
    done = subprocess.run([file, "--help"], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "--owner" in done.stdout
    done = subprocess.run([file, "--owner", "0"], capture_output=True, text=True, env=environment)
    assert done.returncode != 0
