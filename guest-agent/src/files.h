// Owns: the methods on single files and directories: read, write, stat, list. Each runs in a worker.
// Refuses: relative paths, and leaving half a file behind: a write is complete or did not happen.
#pragma once

#include <sys/stat.h>

#include "failure.h"
#include "fields.h"

void file_read(struct fields request);
void file_write(struct fields request);
void file_stat(struct fields request);
void file_list(struct fields request);

// Makes a directory and its parents, 0755, owned by the caller. Links on the way are followed: the path is the user's own.
int make_directories(const char *path, struct failure *failure);
