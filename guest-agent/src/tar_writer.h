// Owns: the output of one tar stream at a time: its buffer, and how an entry's headers look.
// Refuses: walking directories. All its functions return -1 with the failure that tar_begin() was given.
#pragma once

#include <stdint.h>
#include <sys/stat.h>

#include "failure.h"
#include "tar_sparse.h"

void tar_begin(int out, struct failure *failure);

// The entry's headers, and its map if it is sparse. A file's content follows, padded to whole blocks.
int tar_put_entry(const char *path, const char *target, char type, const struct stat *status, const struct sparse *sparse);

// So many bytes of a file from where its descriptor stands. The header has promised them: a file that shrinks meanwhile is
// filled up, one that grows is cut.
int tar_put_bytes(const char *path, int fd, uint64_t left);

int tar_put_padding(uint64_t size);

// The blocks of zeros, and everything out.
int tar_end(void);
