"""Go: go.mod and go.work. Pure.

`toolchain` says which one the authors build with. `go` is the oldest that will do, and Go's own choice without one.
"""

import re
from collections.abc import Iterator

from banger.model.tooling.found import Finding, Rank, want
from banger.model.tooling.text import list_lines

_DIRECTIVE = re.compile(r"(go|toolchain)\s+(\S+)")


def read_go_mod(text: str) -> Iterator[Finding]:
    for number, line in list_lines(text, comment="//"):
        match = _DIRECTIVE.fullmatch(line)
        if match and match[2] not in ("default", "local"):
            version = match[2].removeprefix("go").partition("-")[0]
            rank = Rank.OWN if match[1] == "toolchain" else Rank.NEEDED
            yield want("go", version, number, rank, written=line)
