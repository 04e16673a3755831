"""Installing for the system: the helper as a root-owned file, two units, their configuration, and a record of it.

Acts for `banger system …`. Owns the closed list of files (`places`) and touches none other; speaks to the daemon
and the helper by their sockets only. Failures are `client.wire.Failure`: people read them.
"""
