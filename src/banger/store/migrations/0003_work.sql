-- What is done inside guests. Rows of a VM go when its services let them go, and with the VM's own at the latest.
CREATE TABLE sessions (
    id TEXT PRIMARY KEY,
    vm TEXT NOT NULL REFERENCES vms (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    record TEXT NOT NULL
) STRICT;

CREATE UNIQUE INDEX sessions_by_name ON sessions (vm, name);

CREATE TABLE workspaces (
    vm TEXT PRIMARY KEY REFERENCES vms (id) ON DELETE CASCADE,
    record TEXT NOT NULL
) STRICT;
