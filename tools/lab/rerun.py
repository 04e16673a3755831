"""`python -m tools.lab.rerun REPORT`: after a red `make lab`, what was lost with its lab runs once more, in a new one.

QEMU's emulation of a processor that runs guests loses a host now and then: it panics right after a VMRUN, or comes to a
standstill. That says nothing about banger. So the modules of tests (their tests build upon each other) in whose report
the lab was lost run again, once, loudly. Any other failure is one, and then nothing runs again.
"""

import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import NamedTuple

from tools.lab.channel import LabLost


class Verdict(NamedTuple):
    """Modules of tests, by their names: those that lost their lab, and others that failed."""

    lost: tuple[str, ...]
    failed: tuple[str, ...]


def main() -> int:
    report = Path(sys.argv[1])
    verdict = judge(report.read_text())
    if verdict.failed or not verdict.lost:
        return 1
    print(
        f"‼ THE EMULATOR LOST THE LAB OF {', '.join(verdict.lost)}: once more, in a new one", file=sys.stderr
    )
    logs = report.parent.with_name(f"{report.parent.name}-lost")
    shutil.rmtree(logs, ignore_errors=True)
    report.parent.rename(logs)
    print(f"‼ the logs of the first try are in {logs}", file=sys.stderr)
    modules = [f"{name.replace('.', '/')}.py" for name in verdict.lost]
    pytest = (sys.executable, "-m", "pytest", *modules, "-m", "lab", "-p", "no:randomly")
    return subprocess.run((*pytest, f"--junitxml={report}"), check=False).returncode


def judge(report: str) -> Verdict:
    """Of JUnit's XML. A module that lost its lab is one whatever else failed in it: it runs whole again."""
    lost: set[str] = set()
    failed: set[str] = set()
    for case in ET.fromstring(report).iter("testcase"):
        for problem in (*case.findall("failure"), *case.findall("error")):
            told = f"{problem.get('message')} {problem.text}"
            (lost if LabLost.__name__ in told else failed).add(case.get("classname", ""))
    return Verdict(tuple(sorted(lost)), tuple(sorted(failed - lost)))


if __name__ == "__main__":
    sys.exit(main())
