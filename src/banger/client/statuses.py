"""The protocol's numbers and the exit status of every error code: written by tools/generate.py; do not edit."""

PROTOCOL_VERSION = 1
MAX_LINE_BYTES = 1048576
MAX_PAYLOAD_BYTES = 65536

STDIN = 0
STDOUT = 1
STDERR = 2
CONTROL = 3
END = 4
EVENT = 5

EXIT_STATUS = {
    "bad_version": 70,
    "unknown_method": 70,
    "bad_request": 64,
    "not_found": 66,
    "ambiguous": 66,
    "already_exists": 73,
    "not_running": 69,
    "conflict": 75,
    "unauthorized": 77,
    "unavailable": 69,
    "no_space": 74,
    "cancelled": 130,
    "operation_failed": 71,
    "internal": 70,
}
