"""`python -m tools.lab shell|bare|build`: the lab by hand.

`shell` has banger installed, `bare` has not; both are a terminal of root's in a lab of its own, which ends with it.
`build` makes what is kept and opens nothing.
"""

import argparse
import importlib
import os
import select
import shutil
import sys
import termios
import tty

from tools.lab import recipe
from tools.lab.host import Lab
from tools.lab.stages import ensure_booted_state, ensure_installed_state
from tools.lab.states import open_lab

LEAVE = b"\x1d"  # Ctrl-]
_CHUNK = 65536


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.lab", description=__doc__)
    parser.add_argument("action", choices=("shell", "bare", "build"))
    action = parser.parse_args().action
    # Not a plain import: tests are not typed.
    support = importlib.import_module("tests.support.banger")
    support.make_material("lab")
    data = support.DATA / "banger"
    state = ensure_booted_state(data) if action == "bare" else ensure_installed_state(data)
    if action == "build":
        return 0
    lab = open_lab(state)
    try:
        owner = f"su - {recipe.OWNER}; banger is in ~/banger/bin" if action == "shell" else recipe.OWNER
        print(f"• lab: {lab.start_s:.1f} s; root's shell; owner: {owner}; Ctrl-] leaves", file=sys.stderr)
        attach(lab)
    finally:
        lab.close()
    return 0


def attach(lab: Lab) -> None:
    """This terminal is the lab's console until Ctrl-], the end of stdin, or the lab's end."""
    columns, lines = shutil.get_terminal_size()
    lab.run("stty", "-F", "/dev/hvc0", "rows", str(lines), "cols", str(columns))
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal) if os.isatty(terminal) else None
    with lab.connect("console") as console:
        console.sendall(b"\n")
        if before is not None:
            tty.setraw(terminal)
        try:
            while True:
                ready, _, _ = select.select([terminal, console], [], [])
                if terminal in ready:
                    typed = os.read(terminal, _CHUNK)
                    if not typed or LEAVE in typed:
                        return
                    console.sendall(typed)
                if console in ready:
                    said = console.recv(_CHUNK)
                    if not said:
                        return
                    os.write(sys.stdout.fileno(), said)
        finally:
            if before is not None:
                termios.tcsetattr(terminal, termios.TCSADRAIN, before)
                print()


if __name__ == "__main__":
    sys.exit(main())
