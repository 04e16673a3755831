#define _GNU_SOURCE
#include "tar_reader.h"

#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include "tar_sparse.h"
#include "worker.h"

enum { BUFFER = 65536, PAX_MAX = 65536 };

// What pax and GNU headers say about the entry that follows them
struct overrides {
    char path[PATH_MAX];
    char target[PATH_MAX];
    bool has_path, has_target, has_size, has_uid, has_gid, has_mtime;
    uint64_t size, uid, gid;
    int64_t mtime;
    long mtime_ns;
    struct {
        char name[PATH_MAX];
        bool any, has_name, has_size, has_major, has_minor;
        uint64_t size, major, minor;
    } sparse;
};

struct reader {
    int in;
    struct failure *failure;
    size_t start, end;
    struct overrides next;
    struct sparse sparse; // the map of the entry under way
    uint64_t stored;      // how many bytes its content has in the archive
    char pax[PAX_MAX];
    uint8_t buffer[BUFFER];
};

static struct reader reader;

int tar_malformed(const char *what) { return failure_set(reader.failure, FAILURE_BAD_REQUEST, "archive: %s", what); }

int tar_unsafe(const char *path) {
    return failure_set(reader.failure, FAILURE_UNSAFE_PATH, "%.200s: would leave the directory", path);
}

static int fail_errno(const char *what) {
    return failure_set(reader.failure, (uint32_t)errno, "%s: %s", what, strerror(errno));
}

void tar_open(int in, struct failure *failure) {
    reader.in = in;
    reader.failure = failure;
    reader.start = reader.end = 0;
    reader.next = (struct overrides){0};
}

// Input

// 1: there is something in the buffer, 0: end, -1: failure
static int fill(void) {
    if (reader.start < reader.end)
        return 1;
    ssize_t got;
    do {
        got = read(reader.in, reader.buffer, BUFFER);
    } while (got < 0 && errno == EINTR);
    if (got < 0)
        return fail_errno("read");
    reader.start = 0;
    reader.end = (size_t)got;
    return got > 0;
}

// Copies to out, to a file, or nowhere. A cut archive is a failure.
static int take(uint64_t length, void *out, int fd, const char *path) {
    uint8_t *at = out;
    while (length) {
        int filled = fill();
        if (filled <= 0)
            return filled < 0 ? -1 : tar_malformed("it is cut short");
        size_t size = reader.end - reader.start;
        size = length < size ? (size_t)length : size;
        if (at)
            memcpy(at, reader.buffer + reader.start, size);
        if (fd >= 0 && !write_all(fd, reader.buffer + reader.start, size))
            return fail_errno(path);
        at = at ? at + size : NULL;
        reader.start += size;
        length -= size;
    }
    return 0;
}

static uint64_t padding(uint64_t size) { return -size % TAR_BLOCK; }

static int skip(uint64_t size) { return take(size, NULL, -1, "") < 0 ? -1 : take(padding(size), NULL, -1, ""); }

static int take_segments(const struct tar_entry *entry, int fd) {
    if (fd >= 0 && ftruncate(fd, (off_t)entry->size) < 0)
        return fail_errno(entry->path);
    for (size_t i = 0; i < reader.sparse.count; i++) {
        const struct segment *segment = &reader.sparse.segments[i];
        if (fd >= 0 && lseek(fd, (off_t)segment->offset, SEEK_SET) < 0)
            return fail_errno(entry->path);
        if (take(segment->length, NULL, fd, entry->path) < 0)
            return -1;
    }
    return 0;
}

int tar_content(const struct tar_entry *entry, int fd) {
    int result = entry->is_sparse ? take_segments(entry, fd) : take(entry->size, NULL, fd, entry->path);
    return result < 0 ? -1 : take(padding(reader.stored), NULL, -1, "");
}

// Headers

// Octal with blanks around it, or GNU's base 256 behind a set high bit.
static bool parse_number(const char *field, size_t size, uint64_t *value) {
    const unsigned char *bytes = (const unsigned char *)field;
    size_t i = 0;
    *value = 0;
    if (bytes[0] & 0x80) {
        if (bytes[0] & 0x7f)
            return false; // negative, or far beyond 64 bits
        for (i = 1; i < size; i++) {
            if (*value >> 56)
                return false;
            *value = *value << 8 | bytes[i];
        }
        return *value <= INT64_MAX;
    }
    while (i < size && bytes[i] == ' ')
        i++;
    for (; i < size && bytes[i] >= '0' && bytes[i] <= '7'; i++)
        *value = *value << 3 | (uint64_t)(bytes[i] - '0');
    return i == size || bytes[i] == ' ' || bytes[i] == 0;
}

static bool checksum_fits(const struct tar_header *header) {
    uint64_t expected, sum = 0;
    if (!parse_number(header->checksum, sizeof header->checksum, &expected))
        return false;
    for (size_t i = 0; i < sizeof *header; i++) {
        bool own = i >= offsetof(struct tar_header, checksum) && i < offsetof(struct tar_header, type);
        sum += own ? ' ' : ((const unsigned char *)header)[i];
    }
    return sum == expected;
}

static void copy_field(char *out, const char *field, size_t size) {
    size_t length = strnlen(field, size);
    memcpy(out, field, length);
    out[length] = 0;
}

static bool set_override(char *out, bool *has, const char *value, size_t length) {
    if (length >= PATH_MAX || memchr(value, 0, length))
        return false;
    memcpy(out, value, length);
    out[length] = 0;
    *has = true;
    return true;
}

static bool parse_decimal(const char *value, size_t length, uint64_t *number, bool *has) {
    if (length == 0 || length > 18)
        return false;
    *number = 0;
    for (size_t i = 0; i < length; i++) {
        if (value[i] < '0' || value[i] > '9')
            return false;
        *number = *number * 10 + (uint64_t)(value[i] - '0');
    }
    return *has = true;
}

// Seconds, perhaps negative, perhaps with a fraction.
static bool parse_time(const char *value, size_t length) {
    struct overrides *next = &reader.next;
    bool negative = length && *value == '-';
    const char *dot = memchr(value, '.', length);
    size_t whole = dot ? (size_t)(dot - value) : length;
    uint64_t seconds;
    if (!parse_decimal(value + negative, whole - negative, &seconds, &next->has_mtime))
        return false;
    long ns = 0, unit = 100000000;
    for (size_t i = whole + 1; dot && i < length && unit; i++, unit /= 10) {
        if (value[i] < '0' || value[i] > '9')
            return false;
        ns += (value[i] - '0') * unit;
    }
    next->mtime = negative ? -(int64_t)seconds - (ns ? 1 : 0) : (int64_t)seconds;
    next->mtime_ns = negative && ns ? 1000000000 - ns : ns;
    return true;
}

static bool take_sparse_record(const char *key, size_t key_length, const char *value, size_t length) {
    struct overrides *next = &reader.next;
    next->sparse.any = true;
#define IS(text) (key_length == sizeof text - 1 && memcmp(key, text, key_length) == 0)
    if (IS("name"))
        return set_override(next->sparse.name, &next->sparse.has_name, value, length);
    if (IS("realsize"))
        return parse_decimal(value, length, &next->sparse.size, &next->sparse.has_size);
    if (IS("major"))
        return parse_decimal(value, length, &next->sparse.major, &next->sparse.has_major);
    if (IS("minor"))
        return parse_decimal(value, length, &next->sparse.minor, &next->sparse.has_minor);
    return false; // an older format: its content is not the file's
#undef IS
}

static bool take_record(const char *key, size_t key_length, const char *value, size_t length) {
    struct overrides *next = &reader.next;
#define IS(text) (key_length == sizeof text - 1 && memcmp(key, text, key_length) == 0)
    if (IS("path"))
        return set_override(next->path, &next->has_path, value, length);
    if (IS("linkpath"))
        return set_override(next->target, &next->has_target, value, length);
    if (IS("size"))
        return parse_decimal(value, length, &next->size, &next->has_size);
    if (IS("uid"))
        return parse_decimal(value, length, &next->uid, &next->has_uid);
    if (IS("gid"))
        return parse_decimal(value, length, &next->gid, &next->has_gid);
    if (IS("mtime"))
        return parse_time(value, length);
    if (key_length >= 11 && memcmp(key, "GNU.sparse.", 11) == 0)
        return take_sparse_record(key + 11, key_length - 11, value, length);
    return true;
#undef IS
}

static bool parse_records(const char *text, size_t size) {
    const char *end = text + size;
    while (text < end && *text) {
        size_t length = 0;
        const char *at = text;
        for (; at < end && *at >= '0' && *at <= '9' && length < PAX_MAX; at++)
            length = length * 10 + (size_t)(*at - '0');
        if (at == text || at == end || *at != ' ' || length > (size_t)(end - text) || length < (size_t)(at - text) + 3)
            return false;
        const char *key = at + 1, *last = text + length - 1;
        const char *equals = memchr(key, '=', (size_t)(last - key));
        if (!equals || *last != '\n' || !take_record(key, (size_t)(equals - key), equals + 1, (size_t)(last - equals - 1)))
            return false;
        text += length;
    }
    return true;
}

static int take_extension(char type, uint64_t size) {
    struct overrides *next = &reader.next;
    if (type == TAR_PAX_GLOBAL)
        return skip(size); // git archive's commit id
    if (size >= PAX_MAX)
        return tar_malformed("an extended header is too long");
    if (take(size, reader.pax, -1, "") < 0 || take(padding(size), NULL, -1, "") < 0)
        return -1;
    reader.pax[size] = 0;
    bool fine = type == TAR_PAX              ? parse_records(reader.pax, (size_t)size)
                : type == TAR_GNU_LONG_NAME ? set_override(next->path, &next->has_path, reader.pax, strlen(reader.pax))
                                             : set_override(next->target, &next->has_target, reader.pax, strlen(reader.pax));
    return fine ? 0 : tar_malformed("an extended header is malformed");
}

int tar_normalise(const char *path, char out[PATH_MAX]) {
    size_t length = 0;
    if (*path == '/')
        return tar_unsafe(path);
    while (*path) {
        size_t size = strcspn(path, "/");
        if (size == 2 && memcmp(path, "..", 2) == 0)
            return tar_unsafe(path);
        if (size > 0 && !(size == 1 && *path == '.')) {
            if (length + size + 2 > PATH_MAX)
                return failure_set(reader.failure, ENAMETOOLONG, "%.200s", path);
            if (length)
                out[length++] = '/';
            memcpy(out + length, path, size);
            length += size;
        }
        path += size;
        path += *path == '/';
    }
    out[length] = 0;
    return 0;
}

// The map stands before the data, padded to whole blocks.
static int take_map(struct tar_entry *entry) {
    const struct overrides *next = &reader.next;
    struct sparse_parser parser = {0};
    char block[TAR_BLOCK];
    int state = 0;
    if (entry->type != TAR_FILE || !next->sparse.has_name || !next->sparse.has_size || !next->sparse.has_major ||
        !next->sparse.has_minor || next->sparse.major != 1 || next->sparse.minor != 0)
        return tar_malformed("a sparse file is not in the format GNU.sparse 1.0");
    uint64_t left = entry->size;
    while (state == 0) {
        if (left < TAR_BLOCK)
            return tar_malformed("the map of a sparse file has no end");
        if (take(TAR_BLOCK, block, -1, "") < 0)
            return -1;
        left -= TAR_BLOCK;
        state = sparse_parse(&parser, &reader.sparse, block, sizeof block);
    }
    if (state < 0 || !sparse_fits(&reader.sparse, next->sparse.size, left))
        return tar_malformed("the map of a sparse file is malformed");
    entry->is_sparse = true;
    entry->size = next->sparse.size;
    return 0;
}

static int parse_entry(const struct tar_header *header, struct tar_entry *entry) {
    static char raw[PATH_MAX];
    struct overrides *next = &reader.next;
    uint64_t mode, uid, gid, mtime, device[2] = {0};
    if (!parse_number(header->mode, sizeof header->mode, &mode) || !parse_number(header->uid, sizeof header->uid, &uid) ||
        !parse_number(header->gid, sizeof header->gid, &gid) || !parse_number(header->size, sizeof header->size, &entry->size) ||
        !parse_number(header->mtime, sizeof header->mtime, &mtime))
        return tar_malformed("a header's number is malformed");
    entry->type = header->type == 0 ? TAR_FILE : header->type;
    entry->size = next->has_size ? next->size : entry->size;
    entry->mode = (mode_t)mode & 07777;
    entry->uid = (uid_t)(next->has_uid ? next->uid : uid);
    entry->gid = (gid_t)(next->has_gid ? next->gid : gid);
    entry->mtime = next->has_mtime ? next->mtime : (int64_t)mtime;
    entry->mtime_ns = next->has_mtime ? next->mtime_ns : 0;
    if (entry->type == TAR_CHARACTER || entry->type == TAR_BLOCK_DEVICE) {
        if (!parse_number(header->major, sizeof header->major, &device[0]) ||
            !parse_number(header->minor, sizeof header->minor, &device[1]))
            return tar_malformed("a device's number is malformed");
    }
    entry->major = (unsigned)device[0];
    entry->minor = (unsigned)device[1];
    if (next->has_target)
        memcpy(entry->target, next->target, sizeof entry->target);
    else
        copy_field(entry->target, header->target, sizeof header->target);
    if (next->sparse.has_name) {
        memcpy(raw, next->sparse.name, sizeof raw);
    } else if (next->has_path) {
        memcpy(raw, next->path, sizeof raw);
    } else {
        size_t length = 0;
        // Only POSIX's "ustar\0" has a prefix; GNU's "ustar " keeps times there.
        if (memcmp(header->magic, "ustar", 6) == 0 && header->prefix[0]) {
            copy_field(raw, header->prefix, sizeof header->prefix);
            length = strlen(raw);
            raw[length++] = '/';
        }
        copy_field(raw + length, header->name, sizeof header->name);
    }
    // Old archives mark a directory by its name only.
    if (entry->type == TAR_FILE && *raw && raw[strlen(raw) - 1] == '/')
        entry->type = TAR_DIRECTORY;
    entry->is_sparse = false;
    reader.stored = entry->size;
    if (tar_normalise(raw, entry->path) < 0 || (next->sparse.any && take_map(entry) < 0))
        return -1;
    *next = (struct overrides){0};
    return 0;
}

static bool is_zero(const struct tar_header *header) {
    const char *bytes = (const char *)header;
    return bytes[0] == 0 && memcmp(bytes, bytes + 1, sizeof *header - 1) == 0;
}

// What follows the end is padding to the writer's record size.
static int drain(void) {
    int filled;
    while ((filled = fill()) > 0)
        reader.start = reader.end;
    return filled;
}

int tar_next(struct tar_entry *entry) {
    struct tar_header header;
    for (;;) {
        if (take(sizeof header, &header, -1, "") < 0)
            return -1;
        if (is_zero(&header))
            return drain();
        uint64_t size;
        if (!checksum_fits(&header))
            return tar_malformed("a header's checksum is wrong");
        if (!header.type || !strchr("xgLK", header.type))
            return parse_entry(&header, entry) < 0 ? -1 : 1;
        if (!parse_number(header.size, sizeof header.size, &size))
            return tar_malformed("a header's number is malformed");
        if (take_extension(header.type, size) < 0)
            return -1;
    }
}
