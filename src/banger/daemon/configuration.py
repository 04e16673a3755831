"""Whether a daemon that starts now would understand its configuration. `banger daemon restart` asks before it stops
the one that runs.

`python -m banger.daemon.configuration` prints `{}` or `{"error": …}` as JSON. Nothing else is looked at or made.
"""

import sys

import msgspec

from banger.base.paths import find_paths
from banger.base.problem import Problem
from banger.daemon.wiring import read_config


def main() -> int:
    try:
        read_config(find_paths())
    except Problem as problem:
        sys.stdout.buffer.write(msgspec.json.encode({"error": problem.as_data()}))
        return problem.code.info.exit_status
    sys.stdout.buffer.write(b"{}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
