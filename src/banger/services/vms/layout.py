"""Where the files of one VM are. Owns the names; everything below `state` and `runtime` is the VM's alone."""

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from banger.base.files import remove_tree, remove_unfinished
from banger.model.names import ID_LENGTH
from banger.vmm.contract import Place


class Layout(NamedTuple):
    """Directories and files of one VM."""

    state: Path
    runtime: Path

    @property
    def work_disk(self) -> Path:
        return self.state / "work.img"

    @property
    def initramfs(self) -> Path:
        return self.state / "initramfs.cpio"

    @property
    def host_key(self) -> Path:
        return self.state / "ssh_host_ed25519_key"

    @property
    def known_hosts(self) -> Path:
        return self.state / "known_hosts"

    @property
    def place(self) -> Place:
        return Place(runtime=str(self.runtime), state=str(self.state))

    def log(self, source: str) -> Path:
        return self.state / f"{source}.log"

    def ensure_runtime(self) -> None:
        self.runtime.mkdir(mode=0o700, parents=True, exist_ok=True)

    def remove_unfinished(self) -> None:
        """Files that somebody who died was writing."""
        remove_unfinished(self.state)

    def remove(self) -> None:
        """Everything the VM has on disk. Idempotent."""
        remove_tree(self.runtime)
        remove_tree(self.state)


class Layouts(NamedTuple):
    """The places of all VMs. Ids are 12 hexadecimal digits, so socket paths stay short."""

    state: Path
    runtime: Path

    def of(self, vm_id: str) -> Layout:
        return Layout(self.state / vm_id, self.runtime / vm_id)

    def find_strays(self, known: Collection[str]) -> list[Layout]:
        """Places with names like ours that belong to no known VM."""
        names = {path.name for parent in self for path in parent.glob("*") if len(path.name) == ID_LENGTH}
        return [self.of(name) for name in sorted(names - set(known)) if set(name) <= set("0123456789abcdef")]
