"""`vm ssh` needs an OpenSSH client."""

from banger.api.system import Finding
from banger.base.process import find_tool
from banger.services.checks.contract import CheckSurroundings, passed, warned


async def check(around: CheckSurroundings) -> Finding:
    found = find_tool("ssh")
    if found is None:
        return warned(
            "ssh client", "`banger vm ssh` has no ssh to run", "sudo apt-get install openssh-client"
        )
    return passed("ssh client", str(found))
