// Owns: where sparse files have data: found on disk, as a map in text and back (GNU.sparse 1.0), checked against the file.
// Refuses: reading and writing contents.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

// A file of more pieces is sent as if it had no holes; archives of others may have some more.
enum { SPARSE_SENT = 16384, SPARSE_TAKEN = 65536, SPARSE_LINE = 20 };

struct segment {
    uint64_t offset;
    uint64_t length;
};

struct sparse {
    size_t count;
    struct segment segments[SPARSE_TAKEN];
};

// False for a file without holes, or with too many. A file that ends in a hole ends with an empty segment, as GNU tar wants it.
bool sparse_find(struct sparse *sparse, int fd, uint64_t size, uint64_t allocated);

// The map's text as numbers: the count, then offset and length of each. Returns how many there are.
size_t sparse_numbers(const struct sparse *sparse);
uint64_t sparse_number(const struct sparse *sparse, size_t index);

uint64_t sparse_data_size(const struct sparse *sparse);

// Digit by digit, block by block.
struct sparse_parser {
    size_t taken; // numbers
    uint64_t number;
    int digits;
};

// 1: the map is whole, 0: more blocks are needed, -1: malformed.
int sparse_parse(struct sparse_parser *parser, struct sparse *sparse, const char *block, size_t size);

// In order, apart, within the file, and of exactly the data that is there.
bool sparse_fits(const struct sparse *sparse, uint64_t size, uint64_t data_size);
