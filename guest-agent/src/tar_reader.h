// Owns: a tar stream as entries, one archive at a time: input buffer, headers, what pax and GNU headers say about the next entry,
// and the map of a sparse file (GNU.sparse 1.0).
// Refuses: damaged headers, negative or malformed numbers, names that climb. Writes nothing but contents to descriptors given to it.
#pragma once

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "failure.h"
#include "tar.h"

struct tar_entry {
    char path[PATH_MAX]; // normalised: no empty, "." or ".." component
    char target[PATH_MAX];
    char type;
    mode_t mode;
    uid_t uid;
    gid_t gid;
    uint64_t size; // the file's own, with its holes
    bool is_sparse;
    int64_t mtime;
    long mtime_ns;
    unsigned major, minor;
};

// All failures below go to this one.
void tar_open(int in, struct failure *failure);

// 1: an entry, whose content is to be taken before the next; 0: the end; -1: failure. A cut archive is a failure.
int tar_next(struct tar_entry *entry);

// The content, to a new file, whose holes are made, or (-1) nowhere.
int tar_content(const struct tar_entry *entry, int fd);

// Drops empty and "." components; refuses absolute names and "..".
int tar_normalise(const char *path, char out[PATH_MAX]);

// Both fail: -1.
int tar_unsafe(const char *path);
int tar_malformed(const char *what);
