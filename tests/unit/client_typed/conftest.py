import importlib.util
import sys
from pathlib import Path

import pytest

if "daemon_harness" not in sys.modules:
    spec = importlib.util.spec_from_file_location(
        "daemon_harness", Path(__file__).parents[1] / "daemon" / "harness.py"
    )
    sys.modules["daemon_harness"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["daemon_harness"])
harness_module = sys.modules["daemon_harness"]


@pytest.fixture
async def harness(tmp_path):
    async with harness_module.open_harness(tmp_path) as harness:
        yield harness
