"""How a VM's root disk stands on its image."""

from enum import Enum


class StorageDriver(Enum):
    """`SNAPSHOT` is the kernel's, through root; `REFLINK` shares blocks by the file system; `COPY` shares nothing."""

    QCOW2 = "qcow2"
    SNAPSHOT = "dm-snapshot"
    REFLINK = "reflink"
    COPY = "copy"
