"""The frames of a stream's connection: their kinds and their limit (docs/reference/rpc.md, Streams).

`tools/generate.py` copies these into `client.statuses`, for the client's common path knows no API.
"""

STDIN, STDOUT, STDERR, CONTROL, END = range(5)
MAX_PAYLOAD_BYTES = 65536
