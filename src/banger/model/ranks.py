"""The order in which locks are taken (`base.locks`): a VM's first, then what is published, then the host's parts."""

from enum import IntEnum


class Rank(IntEnum):
    VM = 1
    PUBLICATION = 2  # of an image or a kernel, by name
    BRIDGE = 3
