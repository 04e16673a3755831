from pathlib import Path

import pytest

from banger.base.units import MIB
from banger.storage.contract import Root

SIZE = 64 * MIB


@pytest.fixture
def root(tmp_path) -> Root:
    """A VM's place and an image of two blocks of data with a hole between."""
    image, state = tmp_path / "image.ext4", tmp_path / "vm"
    state.mkdir()
    write_sparse(image)
    return Root("0123456789ab", "web", image, state, SIZE)


def write_sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.write(b"begin".ljust(4096, b"!"))
        file.seek(8 * MIB - 4096)
        file.write(b"end".ljust(4096, b"!"))
