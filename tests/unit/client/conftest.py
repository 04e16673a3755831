import importlib.util
import sys
from pathlib import Path

import pytest

if "fake_daemon" not in sys.modules:
    spec = importlib.util.spec_from_file_location("fake_daemon", Path(__file__).with_name("fake_daemon.py"))
    sys.modules["fake_daemon"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["fake_daemon"])


@pytest.fixture
def runtime(tmp_path, monkeypatch):
    """A runtime directory of the test's own, in which no daemon runs."""
    directory = tmp_path / "run"
    directory.mkdir(mode=0o700)
    monkeypatch.setenv("BANGER_RUNTIME_DIR", str(directory))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return directory


@pytest.fixture
def daemon(runtime):
    from fake_daemon import FakeDaemon

    fake = FakeDaemon(runtime / "daemon.sock")
    yield fake
    fake.close()
