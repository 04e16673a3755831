"""What `vm list` loads (PERFORMANCE P7): little enough to be quick."""

import subprocess
import sys

FORBIDDEN = {
    "argparse", "asyncio", "collections", "dataclasses", "enum", "functools", "json", "msgspec", "pathlib", "re",
    "select", "selectors", "socket", "subprocess", "typing",
}  # fmt: skip
PROGRAM = """
import sys
from banger.cli.main import main
status = main(["vm", "list", "--all"])
sys.stderr.write("\\n".join(sorted(sys.modules)))
sys.exit(status)
"""


def test_list_imports_nothing_heavy(daemon):
    daemon.answers["vm.list"] = {"vms": []}
    done = subprocess.run([sys.executable, "-S", "-c", PROGRAM], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert not loaded & FORBIDDEN
    ours = {name for name in loaded if name.split(".")[0] == "banger"}
    assert "banger.cli.commands.vmlist" in ours
    assert len(ours) <= 18
    assert (
        not {name for name in loaded if name.split(".")[0] not in sys.stdlib_module_names}
        - ours
        - {"__main__"}
    )
