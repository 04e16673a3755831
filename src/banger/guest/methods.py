"""The agent's methods by number, as `guest-agent/protocol.md` lists them."""

from enum import IntEnum


class Method(IntEnum):
    HEALTH = 1
    EXEC = 2
    FILE_READ = 3
    FILE_WRITE = 4
    FILE_STAT = 5
    FILE_LIST = 6
    TREE_GET = 7
    TREE_PUT = 8
    PORTS = 9
    WAIT_PORT = 10
    SYNC = 11
    POWER_OFF = 12
    REBOOT = 13
    CLOCK = 14
    USAGE = 15
    SESSION_START = 16
    SESSION_LIST = 17
    SESSION_READ = 18
    SESSION_WRITE = 19
    SESSION_SIGNAL = 20
    SESSION_RESIZE = 21
    SESSION_STOP = 22
    SESSION_REMOVE = 23
    SESSION_WATCH = 24
