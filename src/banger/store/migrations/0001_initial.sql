-- Records are JSON; the columns beside them are those that are searched or must be unique.
CREATE TABLE vms (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,
    record TEXT NOT NULL
) STRICT;

-- `sequence` keeps the order in which operations began, whatever the clock did.
CREATE TABLE operations (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,
    record TEXT NOT NULL
) STRICT;

CREATE INDEX operations_by_state ON operations (state, sequence);
