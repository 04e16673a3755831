// The unpacker. Archives are hostile: names may climb, links may point anywhere, headers may lie.
#define _GNU_SOURCE
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "files.h"
#include "tar.h"
#include "tree.h"
#include "worker.h"

enum { BUFFER = 65536, PAX_MAX = 65536, OPEN_DIRECTORIES = 64 };

struct entry {
    char path[PATH_MAX]; // normalised: no empty, "." or ".." component
    char target[PATH_MAX];
    char type;
    mode_t mode;
    uid_t uid;
    gid_t gid;
    uint64_t size;
    int64_t mtime;
    long mtime_ns;
    unsigned major, minor;
};

// What pax and GNU headers say about the entry that follows them
struct overrides {
    char path[PATH_MAX];
    char target[PATH_MAX];
    bool has_path, has_target, has_size, has_uid, has_gid, has_mtime;
    uint64_t size, uid, gid;
    int64_t mtime;
    long mtime_ns;
};

struct unpacker {
    int in;
    int root;
    bool keep_owners;
    uid_t uid;
    gid_t gid;
    struct tree_totals *totals;
    struct failure *failure;
    size_t start, end;
    // The directory of the previous entry: most entries lie beside it.
    char parent_path[PATH_MAX];
    int parent;
    // Directories whose time is set when the archive has left them: every file made in them would change it again.
    struct {
        char path[PATH_MAX];
        int64_t mtime;
        long mtime_ns;
    } open_directories[OPEN_DIRECTORIES];
    int open_count;
    struct overrides next;
    struct entry entry;
    char pax[PAX_MAX];
    uint8_t buffer[BUFFER];
};

static struct unpacker unpacker;

static int fail_errno(const char *what) {
    return failure_set(unpacker.failure, (uint32_t)errno, "%s: %s", what, strerror(errno));
}

static int bad_archive(const char *what) { return failure_set(unpacker.failure, FAILURE_BAD_REQUEST, "archive: %s", what); }

static int unsafe(const char *path) {
    return failure_set(unpacker.failure, FAILURE_UNSAFE_PATH, "%.200s: would leave the directory", path);
}

// Input

// 1: there is something in the buffer, 0: end, -1: failure
static int fill(void) {
    if (unpacker.start < unpacker.end)
        return 1;
    ssize_t got;
    do {
        got = read(unpacker.in, unpacker.buffer, BUFFER);
    } while (got < 0 && errno == EINTR);
    if (got < 0)
        return fail_errno("read");
    unpacker.start = 0;
    unpacker.end = (size_t)got;
    return got > 0;
}

// Copies to out, to a file, or nowhere. A cut archive is a failure.
static int take(uint64_t length, void *out, int fd) {
    uint8_t *at = out;
    while (length) {
        int filled = fill();
        if (filled <= 0)
            return filled < 0 ? -1 : bad_archive("it is cut short");
        size_t size = unpacker.end - unpacker.start;
        size = length < size ? (size_t)length : size;
        if (at)
            memcpy(at, unpacker.buffer + unpacker.start, size);
        if (fd >= 0 && !write_all(fd, unpacker.buffer + unpacker.start, size))
            return fail_errno(unpacker.entry.path);
        at = at ? at + size : NULL;
        unpacker.start += size;
        length -= size;
    }
    return 0;
}

static uint64_t padding(uint64_t size) { return -size % TAR_BLOCK; }

static int skip(uint64_t size) { return take(size, NULL, -1) < 0 ? -1 : take(padding(size), NULL, -1); }

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
    struct overrides *next = &unpacker.next;
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

static bool take_record(const char *key, size_t key_length, const char *value, size_t length) {
    struct overrides *next = &unpacker.next;
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
    return !(key_length >= 11 && memcmp(key, "GNU.sparse.", 11) == 0); // its content is not the file's
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
    struct overrides *next = &unpacker.next;
    if (type == TAR_PAX_GLOBAL)
        return skip(size); // git archive's commit id
    if (size >= PAX_MAX)
        return bad_archive("an extended header is too long");
    if (take(size, unpacker.pax, -1) < 0 || take(padding(size), NULL, -1) < 0)
        return -1;
    unpacker.pax[size] = 0;
    bool fine = type == TAR_PAX              ? parse_records(unpacker.pax, (size_t)size)
                : type == TAR_GNU_LONG_NAME ? set_override(next->path, &next->has_path, unpacker.pax, strlen(unpacker.pax))
                                             : set_override(next->target, &next->has_target, unpacker.pax, strlen(unpacker.pax));
    return fine ? 0 : bad_archive("an extended header is malformed");
}

// Drops empty and "." components; refuses absolute names and "..".
static int normalise(const char *path, char out[PATH_MAX]) {
    size_t length = 0;
    if (*path == '/')
        return unsafe(path);
    while (*path) {
        size_t size = strcspn(path, "/");
        if (size == 2 && memcmp(path, "..", 2) == 0)
            return unsafe(path);
        if (size > 0 && !(size == 1 && *path == '.')) {
            if (length + size + 2 > PATH_MAX)
                return failure_set(unpacker.failure, ENAMETOOLONG, "%.200s", path);
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

static int parse_entry(const struct tar_header *header) {
    static char raw[PATH_MAX];
    struct entry *entry = &unpacker.entry;
    struct overrides *next = &unpacker.next;
    uint64_t mode, uid, gid, mtime, device[2] = {0};
    if (!parse_number(header->mode, sizeof header->mode, &mode) || !parse_number(header->uid, sizeof header->uid, &uid) ||
        !parse_number(header->gid, sizeof header->gid, &gid) || !parse_number(header->size, sizeof header->size, &entry->size) ||
        !parse_number(header->mtime, sizeof header->mtime, &mtime))
        return bad_archive("a header's number is malformed");
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
            return bad_archive("a device's number is malformed");
    }
    entry->major = (unsigned)device[0];
    entry->minor = (unsigned)device[1];
    if (next->has_target)
        memcpy(entry->target, next->target, sizeof entry->target);
    else
        copy_field(entry->target, header->target, sizeof header->target);
    if (next->has_path) {
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
    *next = (struct overrides){0};
    return normalise(raw, entry->path);
}

// Output

static bool is_link(int directory, const char *name) {
    struct stat status;
    return fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(status.st_mode);
}

static int own(int directory, const char *name) {
    uid_t uid = unpacker.keep_owners ? unpacker.entry.uid : unpacker.uid;
    gid_t gid = unpacker.keep_owners ? unpacker.entry.gid : unpacker.gid;
    if (fchownat(directory, name, uid, gid, AT_SYMLINK_NOFOLLOW) == 0 || (errno == EPERM && geteuid() != 0))
        return 0;
    return fail_errno(unpacker.entry.path);
}

// One component. O_NOFOLLOW with O_DIRECTORY refuses a link, whoever made it and whenever.
static int descend(int directory, const char *name, bool make) {
    const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    int below = openat(directory, name, flags);
    if (below < 0 && errno == ENOENT && make) {
        if (mkdirat(directory, name, 0755) < 0 && errno != EEXIST)
            return fail_errno(unpacker.entry.path);
        if (fchownat(directory, name, unpacker.uid, unpacker.gid, AT_SYMLINK_NOFOLLOW) < 0 && geteuid() == 0)
            return fail_errno(unpacker.entry.path);
        below = openat(directory, name, flags);
    }
    if (below >= 0)
        return below;
    int error = errno;
    if (is_link(directory, name))
        return unsafe(unpacker.entry.path);
    errno = error;
    return fail_errno(unpacker.entry.path);
}

// The directory of path, whose last component goes to *leaf. The caller does not own the descriptor.
static int open_parent(const char *path, const char **leaf, bool make) {
    char part[NAME_MAX + 1];
    const char *slash = strrchr(path, '/');
    size_t length = slash ? (size_t)(slash - path) : 0;
    *leaf = slash ? slash + 1 : path;
    if (length == 0)
        return unpacker.root;
    if (unpacker.parent >= 0 && strlen(unpacker.parent_path) == length && memcmp(unpacker.parent_path, path, length) == 0)
        return unpacker.parent;
    int directory = fcntl(unpacker.root, F_DUPFD_CLOEXEC, 3);
    for (const char *at = path; directory >= 0 && at < path + length;) {
        size_t size = strcspn(at, "/");
        if (size >= sizeof part) {
            close(directory);
            return failure_set(unpacker.failure, ENAMETOOLONG, "%.200s", path);
        }
        memcpy(part, at, size);
        part[size] = 0;
        int below = descend(directory, part, make);
        close(directory);
        directory = below;
        at += size + 1;
    }
    if (directory < 0)
        return -1;
    if (unpacker.parent >= 0)
        close(unpacker.parent);
    unpacker.parent = directory;
    memcpy(unpacker.parent_path, path, length);
    unpacker.parent_path[length] = 0;
    return directory;
}

static void set_time(int directory, const char *name, int64_t mtime, long mtime_ns) {
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = (time_t)mtime, .tv_nsec = mtime_ns}};
    utimensat(directory, name, times, AT_SYMLINK_NOFOLLOW); // a wrong time is no reason to fail
}

static bool is_below(const char *path, const char *directory) {
    size_t length = strlen(directory);
    return strncmp(path, directory, length) == 0 && path[length] == '/';
}

// Sets the times of the directories that the entry is not in any more. NULL: all of them.
static void leave_directories(const char *path) {
    while (unpacker.open_count) {
        int last = unpacker.open_count - 1;
        const char *leaf;
        if (path && is_below(path, unpacker.open_directories[last].path))
            return;
        int parent = open_parent(unpacker.open_directories[last].path, &leaf, false);
        if (parent >= 0)
            set_time(parent, leaf, unpacker.open_directories[last].mtime, unpacker.open_directories[last].mtime_ns);
        else
            unpacker.failure->code = 0; // somebody removed it meanwhile: no time to set
        unpacker.open_count--;
    }
}

static int make_directory(int parent, const char *leaf) {
    const struct entry *entry = &unpacker.entry;
    if (mkdirat(parent, leaf, 0700) < 0) {
        struct stat status;
        if (errno != EEXIST || fstatat(parent, leaf, &status, AT_SYMLINK_NOFOLLOW) < 0)
            return fail_errno(entry->path);
        if (S_ISLNK(status.st_mode))
            return unsafe(entry->path); // what follows would go through it
        if (!S_ISDIR(status.st_mode) && (unlinkat(parent, leaf, 0) < 0 || mkdirat(parent, leaf, 0700) < 0))
            return fail_errno(entry->path);
    }
    int directory = openat(parent, leaf, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (directory < 0)
        return fail_errno(entry->path);
    int result = own(parent, leaf);
    if (result == 0 && fchmod(directory, entry->mode) < 0)
        result = fail_errno(entry->path);
    close(directory);
    if (result < 0)
        return -1;
    if (unpacker.open_count == OPEN_DIRECTORIES) {
        set_time(parent, leaf, entry->mtime, entry->mtime_ns);
        return 0;
    }
    int place = unpacker.open_count++;
    memcpy(unpacker.open_directories[place].path, entry->path, sizeof entry->path);
    unpacker.open_directories[place].mtime = entry->mtime;
    unpacker.open_directories[place].mtime_ns = entry->mtime_ns;
    return 0;
}

// A new file in place of the old one: neither a link nor another name of a shared file is written through.
static int make_file(int parent, const char *leaf) {
    const struct entry *entry = &unpacker.entry;
    const int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
    int fd = openat(parent, leaf, flags, 0600);
    if (fd < 0 && errno == EEXIST && unlinkat(parent, leaf, 0) == 0)
        fd = openat(parent, leaf, flags, 0600);
    if (fd < 0)
        return fail_errno(entry->path);
    int result = take(entry->size, NULL, fd);
    if (result == 0)
        result = own(parent, leaf);
    if (result == 0 && fchmod(fd, entry->mode) < 0) // after chown, which clears setuid
        result = fail_errno(entry->path);
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = (time_t)entry->mtime, .tv_nsec = entry->mtime_ns}};
    futimens(fd, times);
    if (close(fd) < 0 && result == 0)
        result = fail_errno(entry->path);
    unpacker.totals->bytes += result == 0 ? entry->size : 0;
    return result == 0 ? take(padding(entry->size), NULL, -1) : -1;
}

// The target is a name in the archive and so obeys the same rules.
static int make_hard_link(int parent, const char *leaf) {
    static char target[PATH_MAX];
    const char *target_leaf;
    struct stat status;
    if (normalise(unpacker.entry.target, target) < 0)
        return -1;
    int own_parent = fcntl(parent, F_DUPFD_CLOEXEC, 3); // open_parent() may close the cached one
    int target_parent = open_parent(target, &target_leaf, false);
    int result = target_parent < 0 || own_parent < 0 ? -1 : 0;
    if (result == 0 && fstatat(target_parent, target_leaf, &status, AT_SYMLINK_NOFOLLOW) < 0)
        result = fail_errno(unpacker.entry.path);
    if (result == 0 && S_ISLNK(status.st_mode) == 0 && !S_ISREG(status.st_mode))
        result = bad_archive("a hard link to something else than a file");
    if (result == 0 && linkat(target_parent, target_leaf, own_parent, leaf, 0) < 0) {
        struct stat existing;
        bool same = fstatat(own_parent, leaf, &existing, AT_SYMLINK_NOFOLLOW) == 0 && existing.st_ino == status.st_ino &&
                    existing.st_dev == status.st_dev;
        if (!same && (unlinkat(own_parent, leaf, 0) < 0 || linkat(target_parent, target_leaf, own_parent, leaf, 0) < 0))
            result = fail_errno(unpacker.entry.path);
    }
    if (own_parent >= 0)
        close(own_parent);
    return result;
}

static int make_node(int parent, const char *leaf, char type) {
    const struct entry *entry = &unpacker.entry;
    mode_t kind = type == TAR_FIFO ? S_IFIFO : type == TAR_CHARACTER ? S_IFCHR : S_IFBLK;
    return type == TAR_SYMLINK ? symlinkat(entry->target, parent, leaf)
                               : mknodat(parent, leaf, kind | entry->mode, makedev(entry->major, entry->minor));
}

static int make_special(int parent, const char *leaf) {
    const struct entry *entry = &unpacker.entry;
    if (make_node(parent, leaf, entry->type) < 0 &&
        (errno != EEXIST || unlinkat(parent, leaf, 0) < 0 || make_node(parent, leaf, entry->type) < 0))
        return fail_errno(entry->path);
    if (own(parent, leaf) < 0)
        return -1;
    set_time(parent, leaf, entry->mtime, entry->mtime_ns);
    return 0;
}

static int make_entry(void) {
    const struct entry *entry = &unpacker.entry;
    const char *leaf;
    if (!*entry->path) // "./": the directory itself is the caller's
        return skip(entry->size);
    leave_directories(entry->path);
    int parent = open_parent(entry->path, &leaf, true);
    if (parent < 0)
        return -1;
    unpacker.totals->entries++;
    bool is_file = entry->type == TAR_FILE || entry->type == TAR_CONTIGUOUS;
    if (is_file)
        return make_file(parent, leaf);
    int result;
    switch (entry->type) {
    case TAR_DIRECTORY:
        result = make_directory(parent, leaf);
        break;
    case TAR_HARD_LINK:
        return make_hard_link(parent, leaf); // its size may repeat the file's, but no bytes follow
    case TAR_SYMLINK:
        return make_special(parent, leaf);
    case TAR_CHARACTER:
    case TAR_BLOCK_DEVICE:
    case TAR_FIFO:
        return make_special(parent, leaf);
    default:
        return failure_set(unpacker.failure, FAILURE_BAD_REQUEST, "archive: entry type %d is not supported", entry->type);
    }
    return result == 0 ? skip(entry->size) : -1;
}

static bool is_zero(const struct tar_header *header) {
    const char *bytes = (const char *)header;
    return bytes[0] == 0 && memcmp(bytes, bytes + 1, sizeof *header - 1) == 0;
}

static int unpack_all(void) {
    struct tar_header header;
    for (;;) {
        if (take(sizeof header, &header, -1) < 0)
            return -1;
        if (is_zero(&header))
            break;
        uint64_t size;
        if (!checksum_fits(&header))
            return bad_archive("a header's checksum is wrong");
        if (strchr("xgLK", header.type) && header.type) {
            if (!parse_number(header.size, sizeof header.size, &size))
                return bad_archive("a header's number is malformed");
            if (take_extension(header.type, size) < 0)
                return -1;
        } else if (parse_entry(&header) < 0 || make_entry() < 0) {
            return -1;
        }
    }
    // What follows the end is padding to the writer's record size.
    int filled;
    while ((filled = fill()) > 0)
        unpacker.start = unpacker.end;
    leave_directories(NULL);
    return filled;
}

int tree_unpack(int in, int directory, bool keep_owners, struct tree_totals *totals, struct failure *failure) {
    struct stat status;
    if (fstat(directory, &status) < 0)
        return failure_set(failure, (uint32_t)errno, "%s", strerror(errno));
    *totals = (struct tree_totals){0};
    unpacker.in = in;
    unpacker.root = directory;
    unpacker.keep_owners = keep_owners;
    unpacker.uid = status.st_uid;
    unpacker.gid = status.st_gid;
    unpacker.totals = totals;
    unpacker.failure = failure;
    unpacker.start = unpacker.end = 0;
    unpacker.parent = -1;
    unpacker.open_count = 0;
    unpacker.next = (struct overrides){0};
    int result = unpack_all();
    if (unpacker.parent >= 0)
        close(unpacker.parent);
    return result;
}

void tree_put(struct fields request) {
    static char path[PATH_MAX];
    struct failure failure = {0};
    struct tree_totals totals;
    uint64_t flags = 0;
    struct field field;
    while (fields_next(&request, &field))
        if ((field.tag == 1 && !field_text(&field, path, sizeof path)) || (field.tag == 2 && !field_number(&field, &flags)))
            request.malformed = true;
    if (request.malformed)
        failure_set(&failure, FAILURE_BAD_REQUEST, "malformed fields");
    else if (*path != '/')
        failure_set(&failure, EINVAL, "the path is missing or not absolute");
    if (failure.code)
        report_failure(&failure);
    umask(0);
    if (make_directories(path, &failure) < 0)
        report_failure(&failure);
    int directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0) {
        failure_set(&failure, (uint32_t)errno, "%s: %s", path, strerror(errno));
        report_failure(&failure);
    }
    report_started(NULL);
    if (tree_unpack(STDIN_FILENO, directory, flags & TREE_KEEP_OWNERS, &totals, &failure) < 0)
        report_failure(&failure);
    uint8_t bytes[64];
    struct builder fields = builder_in(bytes, sizeof bytes);
    build_number(&fields, 1, totals.entries);
    build_number(&fields, 2, totals.bytes);
    report_done(&fields);
}
