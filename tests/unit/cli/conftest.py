import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

CLIENT = Path(__file__).parents[1] / "client"
SOURCE = Path(__file__).parents[3] / "src"

if "fake_daemon" not in sys.modules:
    spec = importlib.util.spec_from_file_location("fake_daemon", CLIENT / "fake_daemon.py")
    sys.modules["fake_daemon"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["fake_daemon"])


@pytest.fixture
def runtime(tmp_path, monkeypatch):
    """A runtime directory of the test's own, in which no daemon runs."""
    directory = tmp_path / "run"
    directory.mkdir(mode=0o700)
    monkeypatch.setenv("BANGER_RUNTIME_DIR", str(directory))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("PYTHONPATH", str(SOURCE))
    return directory


@pytest.fixture
def daemon(runtime):
    from fake_daemon import FakeDaemon

    fake = FakeDaemon(runtime / "daemon.sock")
    yield fake
    fake.close()


@pytest.fixture
def banger(capfd, runtime):
    """Runs a command line in this process: (status, stdout, stderr)."""
    from banger.cli.main import main

    def run(*words):
        capfd.readouterr()
        try:
            status = main(list(words))
        except SystemExit as end:
            status = end.code
        out, err = capfd.readouterr()
        return status, out, err

    return run


@pytest.fixture
def start_banger(runtime):
    """Starts a command line as a process; keyword arguments are those of Popen."""
    started = []

    def start(*words, **options):
        options = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
        } | options
        process = subprocess.Popen(
            [sys.executable, "-m", "banger.cli", *words], env=os.environ.copy(), **options
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()
