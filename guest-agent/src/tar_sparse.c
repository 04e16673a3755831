#define _GNU_SOURCE
#include "tar_sparse.h"

#include <errno.h>
#include <unistd.h>

bool sparse_find(struct sparse *sparse, int fd, uint64_t size, uint64_t allocated) {
    off_t at = 0;
    sparse->count = 0;
    if (allocated >= size)
        return false;
    while ((uint64_t)at < size) {
        off_t start = lseek(fd, at, SEEK_DATA);
        if (start < 0 && errno == ENXIO)
            break; // only a hole is left
        off_t end = start < 0 ? -1 : lseek(fd, start, SEEK_HOLE);
        if (end <= start || sparse->count == SPARSE_SENT)
            return false;
        end = (uint64_t)end > size ? (off_t)size : end;
        sparse->segments[sparse->count++] = (struct segment){(uint64_t)start, (uint64_t)(end - start)};
        at = end;
    }
    if ((uint64_t)at < size)
        sparse->segments[sparse->count++] = (struct segment){size, 0};
    return !(sparse->count == 1 && sparse->segments[0].length == size);
}

size_t sparse_numbers(const struct sparse *sparse) { return 1 + 2 * sparse->count; }

uint64_t sparse_number(const struct sparse *sparse, size_t index) {
    if (index == 0)
        return sparse->count;
    const struct segment *segment = &sparse->segments[(index - 1) / 2];
    return index % 2 ? segment->offset : segment->length;
}

uint64_t sparse_data_size(const struct sparse *sparse) {
    uint64_t total = 0;
    for (size_t i = 0; i < sparse->count; i++)
        total += sparse->segments[i].length;
    return total;
}

static bool take_number(struct sparse_parser *parser, struct sparse *sparse) {
    size_t index = parser->taken++;
    if (index == 0)
        return (sparse->count = (size_t)parser->number) <= SPARSE_TAKEN;
    struct segment *segment = &sparse->segments[(index - 1) / 2];
    *(index % 2 ? &segment->offset : &segment->length) = parser->number;
    return true;
}

int sparse_parse(struct sparse_parser *parser, struct sparse *sparse, const char *block, size_t size) {
    for (size_t i = 0; i < size; i++) {
        if (block[i] >= '0' && block[i] <= '9' && parser->digits < SPARSE_LINE - 2) {
            parser->number = parser->number * 10 + (uint64_t)(block[i] - '0');
            parser->digits++;
            continue;
        }
        if (block[i] != '\n' || parser->digits == 0 || !take_number(parser, sparse))
            return -1;
        if (parser->taken == sparse_numbers(sparse))
            return 1;
        parser->number = 0;
        parser->digits = 0;
    }
    return 0;
}

bool sparse_fits(const struct sparse *sparse, uint64_t size, uint64_t data_size) {
    uint64_t at = 0, total = 0;
    for (size_t i = 0; i < sparse->count; i++) {
        const struct segment *segment = &sparse->segments[i];
        if (segment->offset < at || segment->offset > size || segment->length > size - segment->offset)
            return false;
        at = segment->offset + segment->length;
        total += segment->length;
    }
    return total == data_size;
}
