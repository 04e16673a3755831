from collections.abc import Iterator
from pathlib import Path

import pytest

from banger.vmm.firecracker.sockets import Sockets


@pytest.fixture(autouse=True)
def close_sockets(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Directories that a test has opened are closed behind it."""
    opened: list[Sockets] = []
    find = Sockets.find

    def find_and_note(directory: Path) -> Sockets:
        opened.append(find(directory))
        return opened[-1]

    monkeypatch.setattr(Sockets, "find", find_and_note)
    yield
    for sockets in opened:
        sockets.close()
