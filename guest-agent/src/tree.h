// Owns: directory trees as tar streams. tree_pack and tree_unpack are pure of the agent; the two methods run them in workers.
// Refuses: extended attributes, other file systems below the packed directory.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "failure.h"
#include "fields.h"

enum { TREE_KEEP_OWNERS = 1 };

// Whose the files become: the archive's owners, the named one, or (neither) the directory's.
struct tree_owner {
    bool keep;
    bool given;
    uid_t uid;
    gid_t gid;
};

struct tree_totals {
    uint64_t entries;
    uint64_t bytes;
};

// The directory's entries (or only the named ones), or one file. Returns -1 with the failure.
int tree_pack(int out, const char *path, const char *const *names, size_t name_count, struct failure *failure);

// Invariant: no entry is written outside of the directory, whatever the archive or a process beside us does: every path is walked
// component by component without following links.
int tree_unpack(int in, int directory, const struct tree_owner *owner, struct tree_totals *totals, struct failure *failure);

void tree_get(struct fields request);
void tree_put(struct fields request);
