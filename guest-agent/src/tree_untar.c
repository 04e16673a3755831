// The unpacker: what tar_reader tells, on disk. Archives are hostile: links may point anywhere, entries may come twice.
#define _GNU_SOURCE
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "files.h"
#include "tar_reader.h"
#include "tree.h"
#include "worker.h"

enum { OPEN_DIRECTORIES = 64 };

struct unpacker {
    int root;
    struct tree_owner owner;
    struct tree_totals *totals;
    struct failure *failure;
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
    // The file that is being written, under a name of ours beside its own
    int half_parent; // -1: none
    char half_name[32];
    struct tar_entry entry;
};

static struct unpacker unpacker;

static int fail_errno(const char *what) {
    return failure_set(unpacker.failure, (uint32_t)errno, "%s: %s", what, strerror(errno));
}

static bool is_link(int directory, const char *name) {
    struct stat status;
    return fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(status.st_mode);
}

static int own(int directory, const char *name) {
    uid_t uid = unpacker.owner.keep ? unpacker.entry.uid : unpacker.owner.uid;
    gid_t gid = unpacker.owner.keep ? unpacker.entry.gid : unpacker.owner.gid;
    if (fchownat(directory, name, uid, gid, AT_SYMLINK_NOFOLLOW) == 0 || (errno == EPERM && geteuid() != 0))
        return 0;
    return fail_errno(unpacker.entry.path);
}

// Bits that lend an owner's rights mean something only with the owner that the archive names.
static mode_t allowed_mode(void) { return unpacker.entry.mode & (unpacker.owner.keep ? 07777 : 01777); }

// One component. O_NOFOLLOW with O_DIRECTORY refuses a link, whoever made it and whenever.
static int descend(int directory, const char *name, bool make) {
    const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    int below = openat(directory, name, flags);
    if (below < 0 && errno == ENOENT && make) {
        if (mkdirat(directory, name, 0755) < 0 && errno != EEXIST)
            return fail_errno(unpacker.entry.path);
        if (fchownat(directory, name, unpacker.owner.uid, unpacker.owner.gid, AT_SYMLINK_NOFOLLOW) < 0 && geteuid() == 0)
            return fail_errno(unpacker.entry.path);
        below = openat(directory, name, flags);
    }
    if (below >= 0)
        return below;
    int error = errno;
    if (is_link(directory, name))
        return tar_unsafe(unpacker.entry.path);
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
    const struct tar_entry *entry = &unpacker.entry;
    if (mkdirat(parent, leaf, 0700) < 0) {
        struct stat status;
        if (errno != EEXIST || fstatat(parent, leaf, &status, AT_SYMLINK_NOFOLLOW) < 0)
            return fail_errno(entry->path);
        if (S_ISLNK(status.st_mode))
            return tar_unsafe(entry->path); // what follows would go through it
        if (!S_ISDIR(status.st_mode) && (unlinkat(parent, leaf, 0) < 0 || mkdirat(parent, leaf, 0700) < 0))
            return fail_errno(entry->path);
    }
    int directory = openat(parent, leaf, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (directory < 0)
        return fail_errno(entry->path);
    int result = own(parent, leaf);
    if (result == 0 && fchmod(directory, allowed_mode()) < 0)
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

static void remove_half_written(int signal) {
    (void)signal;
    if (unpacker.half_parent >= 0)
        unlinkat(unpacker.half_parent, unpacker.half_name, 0);
    _exit(1);
}

static int write_half(int fd) {
    const struct tar_entry *entry = &unpacker.entry;
    if (tar_content(entry, fd) < 0 || own(unpacker.half_parent, unpacker.half_name) < 0)
        return -1;
    if (fchmod(fd, allowed_mode()) < 0) // after chown, which clears setuid
        return fail_errno(entry->path);
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = (time_t)entry->mtime, .tv_nsec = entry->mtime_ns}};
    futimens(fd, times);
    return 0;
}

// Takes its name when it is whole: the old file stays until then, and neither a link nor another name of a shared file is
// written through.
static int make_file(int parent, const char *leaf) {
    const struct tar_entry *entry = &unpacker.entry;
    const int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
    struct stat status;
    if (fstatat(parent, leaf, &status, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(status.st_mode))
        return failure_set(unpacker.failure, EISDIR, "%s: %s", entry->path, strerror(EISDIR));
    snprintf(unpacker.half_name, sizeof unpacker.half_name, ".banger-%d.part", (int)getpid());
    int fd = openat(parent, unpacker.half_name, flags, 0600);
    if (fd < 0 && errno == EEXIST && unlinkat(parent, unpacker.half_name, 0) == 0) // of a worker before a crash
        fd = openat(parent, unpacker.half_name, flags, 0600);
    if (fd < 0)
        return fail_errno(entry->path);
    unpacker.half_parent = parent;
    int result = write_half(fd);
    if (close(fd) < 0 && result == 0)
        result = fail_errno(entry->path);
    if (result == 0 && renameat(parent, unpacker.half_name, parent, leaf) < 0)
        result = fail_errno(entry->path);
    if (result < 0)
        unlinkat(parent, unpacker.half_name, 0);
    unpacker.half_parent = -1;
    unpacker.totals->bytes += result == 0 ? entry->size : 0;
    return result;
}

// The target is a name in the archive and so obeys the same rules.
static int make_hard_link(int parent, const char *leaf) {
    static char target[PATH_MAX];
    const char *target_leaf;
    struct stat status;
    if (tar_normalise(unpacker.entry.target, target) < 0)
        return -1;
    int own_parent = fcntl(parent, F_DUPFD_CLOEXEC, 3); // open_parent() may close the cached one
    int target_parent = open_parent(target, &target_leaf, false);
    int result = target_parent < 0 || own_parent < 0 ? -1 : 0;
    if (result == 0 && fstatat(target_parent, target_leaf, &status, AT_SYMLINK_NOFOLLOW) < 0)
        result = fail_errno(unpacker.entry.path);
    if (result == 0 && S_ISLNK(status.st_mode) == 0 && !S_ISREG(status.st_mode))
        result = tar_malformed("a hard link to something else than a file");
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
    const struct tar_entry *entry = &unpacker.entry;
    mode_t kind = type == TAR_FIFO ? S_IFIFO : type == TAR_CHARACTER ? S_IFCHR : S_IFBLK;
    return type == TAR_SYMLINK ? symlinkat(entry->target, parent, leaf)
                               : mknodat(parent, leaf, kind | allowed_mode(), makedev(entry->major, entry->minor));
}

static int make_special(int parent, const char *leaf) {
    const struct tar_entry *entry = &unpacker.entry;
    if (make_node(parent, leaf, entry->type) < 0 &&
        (errno != EEXIST || unlinkat(parent, leaf, 0) < 0 || make_node(parent, leaf, entry->type) < 0))
        return fail_errno(entry->path);
    if (own(parent, leaf) < 0)
        return -1;
    set_time(parent, leaf, entry->mtime, entry->mtime_ns);
    return 0;
}

static int make_entry(void) {
    const struct tar_entry *entry = &unpacker.entry;
    const char *leaf;
    if (!*entry->path) // "./": the directory itself is the caller's
        return tar_content(entry, -1);
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
        if (!unpacker.owner.keep)
            return failure_set(unpacker.failure, FAILURE_UNSAFE_PATH, "%.200s: a device, without owners kept", entry->path);
        return make_special(parent, leaf);
    case TAR_FIFO:
        return make_special(parent, leaf);
    default:
        return failure_set(unpacker.failure, FAILURE_BAD_REQUEST, "archive: entry type %d is not supported", entry->type);
    }
    return result == 0 ? tar_content(entry, -1) : -1;
}

static int unpack_all(void) {
    int found;
    while ((found = tar_next(&unpacker.entry)) > 0)
        if (make_entry() < 0)
            return -1;
    if (found == 0)
        leave_directories(NULL);
    return found;
}

int tree_unpack(int in, int directory, const struct tree_owner *owner, struct tree_totals *totals, struct failure *failure) {
    struct stat status;
    if (fstat(directory, &status) < 0)
        return failure_set(failure, (uint32_t)errno, "%s", strerror(errno));
    *totals = (struct tree_totals){0};
    unpacker.root = directory;
    unpacker.owner = *owner;
    if (!owner->given) {
        unpacker.owner.uid = status.st_uid;
        unpacker.owner.gid = status.st_gid;
    }
    unpacker.totals = totals;
    unpacker.failure = failure;
    unpacker.parent = -1;
    unpacker.half_parent = -1;
    unpacker.open_count = 0;
    tar_open(in, failure);
    int result = unpack_all();
    if (unpacker.parent >= 0)
        close(unpacker.parent);
    return result;
}

// The directory, made if it is missing, and then the named owner's.
static int open_target(const char *path, const struct tree_owner *owner, struct failure *failure) {
    struct stat status;
    bool made = stat(path, &status) < 0;
    if (make_directories(path, failure) < 0)
        return -1;
    int directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0 || (made && owner->given && fchown(directory, owner->uid, owner->gid) < 0))
        return failure_set(failure, (uint32_t)errno, "%s: %s", path, strerror(errno));
    return directory;
}

static const char *parse_put(struct fields request, struct tree_owner *owner, struct failure *failure) {
    static char path[PATH_MAX];
    uint64_t numbers[5] = {0};
    bool given[5] = {false};
    struct field field;
    while (fields_next(&request, &field)) {
        bool fine = true;
        if (field.tag == 1)
            fine = field_text(&field, path, sizeof path);
        else if (field.tag < 5)
            fine = given[field.tag] = field_number(&field, &numbers[field.tag]);
        request.malformed = request.malformed || !fine;
    }
    *owner = (struct tree_owner){
        .keep = numbers[2] & TREE_KEEP_OWNERS, .given = given[3] && given[4], .uid = (uid_t)numbers[3], .gid = (gid_t)numbers[4]};
    if (request.malformed)
        failure_set(failure, FAILURE_BAD_REQUEST, "malformed fields");
    else if (*path != '/')
        failure_set(failure, EINVAL, "the path is missing or not absolute");
    return path;
}

void tree_put(struct fields request) {
    struct failure failure = {0};
    struct tree_owner owner;
    struct tree_totals totals;
    const char *path = parse_put(request, &owner, &failure);
    if (failure.code)
        report_failure(&failure);
    umask(0);
    int directory = open_target(path, &owner, &failure);
    if (directory < 0)
        report_failure(&failure);
    unpacker.half_parent = -1;
    struct sigaction remove = {.sa_handler = remove_half_written};
    sigaction(SIGTERM, &remove, NULL);
    report_started(NULL);
    if (tree_unpack(STDIN_FILENO, directory, &owner, &totals, &failure) < 0)
        report_failure(&failure);
    uint8_t bytes[64];
    struct builder fields = builder_in(bytes, sizeof bytes);
    build_number(&fields, 1, totals.entries);
    build_number(&fields, 2, totals.bytes);
    report_done(&fields);
}
