#define _GNU_SOURCE
#include "tar_writer.h"

#include <limits.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "tar.h"
#include "worker.h"

enum { BUFFER = 65536, PAX_MAX = 3 * PATH_MAX };

struct writer {
    int out;
    struct failure *failure;
    size_t used;
    uint8_t buffer[BUFFER];
};

static struct writer writer;

static int fail_errno(const char *what) {
    return failure_set(writer.failure, (uint32_t)errno, "%s: %s", what, strerror(errno));
}

void tar_begin(int out, struct failure *failure) {
    writer.out = out;
    writer.failure = failure;
    writer.used = 0;
}

static int flush(void) {
    if (!write_all(writer.out, writer.buffer, writer.used))
        return fail_errno("write");
    writer.used = 0;
    return 0;
}

static int put(const void *bytes, size_t length) {
    const uint8_t *at = bytes;
    while (length) {
        size_t size = BUFFER - writer.used < length ? BUFFER - writer.used : length;
        if (at)
            memcpy(writer.buffer + writer.used, at, size);
        else
            memset(writer.buffer + writer.used, 0, size);
        at = at ? at + size : NULL;
        writer.used += size;
        length -= size;
        if (writer.used == BUFFER && flush() < 0)
            return -1;
    }
    return 0;
}

int tar_put_padding(uint64_t size) { return put(NULL, (size_t)(-size % TAR_BLOCK)); }

// False when the number needs a pax record; the field then holds 0.
static bool put_octal(char *field, size_t size, int64_t value) {
    bool fits = value >= 0 && value < (int64_t)1 << 3 * (size - 1);
    snprintf(field, size, "%0*llo", (int)size - 1, (unsigned long long)(fits ? value : 0));
    return fits;
}

static int put_header(struct tar_header *header) {
    unsigned sum = 0;
    memcpy(header->magic, "ustar", 6);
    memcpy(header->version, "00", 2);
    memset(header->checksum, ' ', sizeof header->checksum);
    for (size_t i = 0; i < sizeof *header; i++)
        sum += ((unsigned char *)header)[i];
    snprintf(header->checksum, sizeof header->checksum, "%06o", sum);
    return put(header, sizeof *header);
}

struct records {
    char text[PAX_MAX];
    size_t length;
};

// "LENGTH key=value\n", where LENGTH counts itself.
static void add_record(struct records *records, const char *key, const char *value) {
    size_t body = strlen(key) + strlen(value) + 3, length = body + 1;
    char digits[24];
    while ((size_t)snprintf(digits, sizeof digits, "%zu", length) + body != length)
        length = body + strlen(digits);
    if (length < sizeof records->text - records->length)
        records->length += (size_t)sprintf(records->text + records->length, "%zu %s=%s\n", length, key, value);
}

static void add_number(struct records *records, const char *key, int64_t value) {
    char text[24];
    snprintf(text, sizeof text, "%lld", (long long)value);
    add_record(records, key, text);
}

static void set_text(char *field, struct records *records, const char *key, const char *value) {
    size_t length = strlen(value);
    if (length > TAR_NAME)
        add_record(records, key, value);
    memcpy(field, value, length < TAR_NAME ? length : TAR_NAME);
}

// The map as text, padded; or, when size is given, only how long that is.
static int put_map(const struct sparse *sparse, uint64_t *size) {
    char line[24];
    uint64_t length = 0;
    for (size_t i = 0; i < sparse_numbers(sparse); i++) {
        int digits = snprintf(line, sizeof line, "%llu\n", (unsigned long long)sparse_number(sparse, i));
        length += (uint64_t)digits;
        if (!size && put(line, (size_t)digits) < 0)
            return -1;
    }
    if (size)
        *size = length + -length % TAR_BLOCK;
    return size ? 0 : tar_put_padding(length);
}

static void name_sparse(struct tar_header *header, struct records *records, const char *path, int64_t real_size) {
    const char *slash = strrchr(path, '/');
    add_record(records, "GNU.sparse.major", "1");
    add_record(records, "GNU.sparse.minor", "0");
    add_record(records, "GNU.sparse.name", path);
    add_number(records, "GNU.sparse.realsize", real_size);
    snprintf(header->name, sizeof header->name, "GNUSparseFile.0/%.80s", slash ? slash + 1 : path);
}

int tar_put_entry(const char *path, const char *target, char type, const struct stat *status, const struct sparse *sparse) {
    static struct records records;
    struct tar_header header = {.type = type};
    int64_t size = type == TAR_FILE ? status->st_size : 0;
    records.length = 0;
    if (sparse) {
        uint64_t map_size;
        put_map(sparse, &map_size);
        name_sparse(&header, &records, path, size);
        size = (int64_t)(map_size + sparse_data_size(sparse));
    } else {
        set_text(header.name, &records, "path", path);
    }
    if (target)
        set_text(header.target, &records, "linkpath", target);
    put_octal(header.mode, sizeof header.mode, status->st_mode & 07777);
    if (!put_octal(header.uid, sizeof header.uid, status->st_uid))
        add_number(&records, "uid", status->st_uid);
    if (!put_octal(header.gid, sizeof header.gid, status->st_gid))
        add_number(&records, "gid", status->st_gid);
    if (!put_octal(header.size, sizeof header.size, size))
        add_number(&records, "size", size);
    if (!put_octal(header.mtime, sizeof header.mtime, status->st_mtim.tv_sec))
        add_number(&records, "mtime", status->st_mtim.tv_sec);
    if (type == TAR_CHARACTER || type == TAR_BLOCK_DEVICE) {
        put_octal(header.major, sizeof header.major, major(status->st_rdev));
        put_octal(header.minor, sizeof header.minor, minor(status->st_rdev));
    }
    if (records.length) {
        struct tar_header extended = {.type = TAR_PAX, .name = "pax", .mode = "0000644", .uid = "0000000", .gid = "0000000", .mtime = "00000000000"};
        put_octal(extended.size, sizeof extended.size, (int64_t)records.length);
        if (put_header(&extended) < 0 || put(records.text, records.length) < 0 || tar_put_padding(records.length) < 0)
            return -1;
    }
    return put_header(&header) < 0 || (sparse && put_map(sparse, NULL) < 0) ? -1 : 0;
}

int tar_put_bytes(const char *path, int fd, uint64_t left) {
    while (left) {
        size_t room = BUFFER - writer.used;
        ssize_t got = read(fd, writer.buffer + writer.used, left < room ? (size_t)left : room);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return fail_errno(path);
        if (got == 0)
            break;
        writer.used += (size_t)got;
        left -= (uint64_t)got;
        if (writer.used == BUFFER && flush() < 0)
            return -1;
    }
    while (left) {
        size_t step = left < BUFFER ? (size_t)left : BUFFER;
        if (put(NULL, step) < 0)
            return -1;
        left -= step;
    }
    return 0;
}

int tar_end(void) { return put(NULL, (size_t)2 * TAR_BLOCK) < 0 ? -1 : flush(); }
