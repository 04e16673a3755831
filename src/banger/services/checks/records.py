"""What `banger system install` has written down, as far as checks look at it."""

from pathlib import Path

import msgspec

from banger.base.problem import unavailable


class InstalledFile(msgspec.Struct, frozen=True):
    path: str
    digest: str
    mode: int


class InstallRecord(msgspec.Struct, frozen=True):
    version: str
    owner: str
    uid: int
    finished: bool
    files: tuple[InstalledFile, ...]

    def digest_of(self, path: str) -> str:
        return next((file.digest for file in self.files if file.path == path), "")


def find_install_record(path: Path) -> InstallRecord | None:
    """None where nothing is installed. Raises `unavailable` for one that cannot be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=InstallRecord)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise unavailable(f"{path} cannot be read: {error}", hint="sudo banger system install") from error
