"""The root helper: the only part of banger that is ever root. Standard library and the contract only.

`server` has the socket, `handlers` one method for each request, and below them are the things of the host: `bridge`,
`tap`, `guests`, `ports`, `names`, `processes`. It keeps no state of its own: the interfaces and the nftables tables are
the truth, so that a helper that was killed goes on where it was.
"""
