"""The frames of a stream's connection: their kinds and their limit (docs/reference/rpc.md, Streams).

`tools/generate.py` copies these into `client.statuses`, for the client's common path knows no API.
"""

STDIN, STDOUT, STDERR, CONTROL, END, EVENT = range(6)
MAX_PAYLOAD_BYTES = 65536
