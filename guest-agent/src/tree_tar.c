// The packer. Walks by descriptors and never follows a link below the directory; stays on its file system, so that /proc is not packed.
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "tar.h"
#include "tar_sparse.h"
#include "tar_writer.h"
#include "tree.h"
#include "worker.h"

enum { LINKS = 16384, LINK_TEXT = 1 << 20, NAMES_MAX = 1024 };

struct packer {
    dev_t device;
    struct failure *failure;
    // Files with several names, to pack their bytes once. When the table is full, the rest are packed as files of their own.
    struct {
        dev_t device;
        ino_t inode;
        uint32_t text; // offset + 1 into link_text
    } links[LINKS];
    size_t link_count;
    size_t link_text_used;
    char link_text[LINK_TEXT];
    char path[PATH_MAX];
    struct sparse sparse;
};

static struct packer packer; // 2.5 MiB that only a worker touches, and only the pages it needs

static int fail_errno(const char *what) {
    return failure_set(packer.failure, (uint32_t)errno, "%s: %s", what, strerror(errno));
}

static int put_file(int fd, const struct stat *status) {
    struct sparse *sparse = &packer.sparse;
    uint64_t size = (uint64_t)status->st_size;
    if (!sparse_find(sparse, fd, size, (uint64_t)status->st_blocks * 512)) {
        lseek(fd, 0, SEEK_SET); // where the search has left it
        int result = tar_put_entry(packer.path, NULL, TAR_FILE, status, NULL);
        return result < 0 || tar_put_bytes(packer.path, fd, size) < 0 ? -1 : tar_put_padding(size);
    }
    if (tar_put_entry(packer.path, NULL, TAR_FILE, status, sparse) < 0)
        return -1;
    for (size_t i = 0; i < sparse->count; i++) {
        const struct segment *segment = &sparse->segments[i];
        if (lseek(fd, (off_t)segment->offset, SEEK_SET) < 0)
            return fail_errno(packer.path);
        if (tar_put_bytes(packer.path, fd, segment->length) < 0)
            return -1;
    }
    return tar_put_padding(sparse_data_size(sparse));
}

// The first name of that file, or NULL after remembering this one.
static const char *earlier_name(const struct stat *status) {
    size_t length = strlen(packer.path) + 1;
    size_t slot = (size_t)(status->st_ino * 0x9e3779b97f4a7c15u >> 32) % LINKS;
    for (; packer.links[slot].text; slot = (slot + 1) % LINKS)
        if (packer.links[slot].inode == status->st_ino && packer.links[slot].device == status->st_dev)
            return packer.link_text + packer.links[slot].text - 1;
    if (packer.link_count >= LINKS / 2 || length > LINK_TEXT - packer.link_text_used)
        return NULL;
    packer.links[slot].device = status->st_dev;
    packer.links[slot].inode = status->st_ino;
    packer.links[slot].text = (uint32_t)packer.link_text_used + 1;
    packer.link_count++;
    memcpy(packer.link_text + packer.link_text_used, packer.path, length);
    packer.link_text_used += length;
    return NULL;
}

static int pack_file(int directory, const char *name, const struct stat *status) {
    struct stat opened;
    const char *first = status->st_nlink > 1 ? earlier_name(status) : NULL;
    if (first)
        return tar_put_entry(packer.path, first, TAR_HARD_LINK, status, NULL);
    int fd = openat(directory, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return errno == ENOENT ? 0 : fail_errno(packer.path);
    int result = 0;
    if (fstat(fd, &opened) == 0 && S_ISREG(opened.st_mode)) // not something else by now
        result = put_file(fd, &opened);
    close(fd);
    return result;
}

static int pack_item(int directory, const char *name, size_t path_length);

static int pack_below(int directory, size_t path_length) {
    struct dirent *item;
    int result = 0;
    DIR *items = fdopendir(directory);
    if (!items) {
        close(directory);
        return fail_errno(packer.path);
    }
    while (result == 0 && (errno = 0, item = readdir(items)))
        if (strcmp(item->d_name, ".") != 0 && strcmp(item->d_name, "..") != 0)
            result = pack_item(directory, item->d_name, path_length);
    if (result == 0 && errno)
        result = fail_errno(packer.path);
    closedir(items);
    return result;
}

static int pack_directory(int directory, const char *name, const struct stat *status, size_t path_length) {
    memcpy(packer.path + path_length, "/", 2);
    if (tar_put_entry(packer.path, NULL, TAR_DIRECTORY, status, NULL) < 0)
        return -1;
    if (status->st_dev != packer.device)
        return 0;
    int below = openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (below < 0)
        return errno == ENOENT ? 0 : fail_errno(packer.path);
    return pack_below(below, path_length + 1);
}

// path_length: of what is above it, with its slash
static int pack_item(int directory, const char *name, size_t path_length) {
    char target[PATH_MAX];
    struct stat status;
    size_t length = strlen(name);
    if (path_length + length + 2 > sizeof packer.path)
        return failure_set(packer.failure, ENAMETOOLONG, "%s", packer.path);
    memcpy(packer.path + path_length, name, length + 1);
    path_length += length;
    if (fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : fail_errno(packer.path); // it went away while we walked
    switch (status.st_mode & S_IFMT) {
    case S_IFREG:
        return pack_file(directory, name, &status);
    case S_IFDIR:
        return pack_directory(directory, name, &status, path_length);
    case S_IFLNK: {
        ssize_t size = readlinkat(directory, name, target, sizeof target - 1);
        if (size < 0)
            return errno == ENOENT || errno == EINVAL ? 0 : fail_errno(packer.path);
        target[size] = 0;
        return tar_put_entry(packer.path, target, TAR_SYMLINK, &status, NULL);
    }
    case S_IFCHR:
        return tar_put_entry(packer.path, NULL, TAR_CHARACTER, &status, NULL);
    case S_IFBLK:
        return tar_put_entry(packer.path, NULL, TAR_BLOCK_DEVICE, &status, NULL);
    case S_IFIFO:
        return tar_put_entry(packer.path, NULL, TAR_FIFO, &status, NULL);
    default: // a socket means nothing without its process
        return 0;
    }
}

// Named entries must exist: the caller asked for them. They are walked like everything else, without following links.
static int pack_named(int root, const char *name) {
    char walked[PATH_MAX];
    int directory = fcntl(root, F_DUPFD_CLOEXEC, 3);
    size_t length = 0;
    int result = 0;
    if (*name == '/' || strlen(name) >= sizeof walked)
        result = failure_set(packer.failure, FAILURE_UNSAFE_PATH, "%.200s: not below the directory", name);
    for (const char *at = name; result == 0;) {
        size_t size = strcspn(at, "/");
        bool last = at[size + strspn(at + size, "/")] == 0;
        memcpy(walked, at, size);
        walked[size] = 0;
        if (size == 0 || strcmp(walked, ".") == 0 || strcmp(walked, "..") == 0) {
            result = failure_set(packer.failure, FAILURE_UNSAFE_PATH, "%.200s: not below the directory", name);
        } else if (last) {
            struct stat status;
            if (fstatat(directory, walked, &status, AT_SYMLINK_NOFOLLOW) < 0) {
                result = fail_errno(name);
            } else {
                packer.device = status.st_dev; // who names a mount point means what is mounted there
                result = pack_item(directory, walked, length);
            }
            break;
        } else {
            int below = openat(directory, walked, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            if (below < 0) {
                result = fail_errno(name);
                break;
            }
            close(directory);
            directory = below;
            memcpy(packer.path + length, at, size);
            length += size;
            packer.path[length++] = '/';
            packer.path[length] = 0;
            at += size + strspn(at + size, "/");
        }
    }
    close(directory);
    return result;
}

static int pack_all(const char *path, const char *const *names, size_t name_count) {
    struct stat status;
    int root = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (root < 0 || fstat(root, &status) < 0)
        return fail_errno(path);
    packer.device = status.st_dev;
    if (!S_ISDIR(status.st_mode)) {
        const char *name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
        snprintf(packer.path, sizeof packer.path, "%s", name);
        int result = S_ISREG(status.st_mode) ? 0 : failure_set(packer.failure, EINVAL, "%s: neither a file nor a directory", path);
        if (result == 0)
            result = put_file(root, &status);
        close(root);
        return result;
    }
    if (name_count == 0)
        return pack_below(root, 0);
    int result = 0;
    for (size_t i = 0; i < name_count && result == 0; i++)
        result = pack_named(root, names[i]);
    close(root);
    return result;
}

int tree_pack(int out, const char *path, const char *const *names, size_t name_count, struct failure *failure) {
    memset(packer.links, 0, sizeof packer.links);
    packer.failure = failure;
    packer.link_count = packer.link_text_used = 0;
    packer.path[0] = 0;
    tar_begin(out, failure);
    return pack_all(path, names, name_count) < 0 ? -1 : tar_end();
}

void tree_get(struct fields request) {
    static char arena[FRAME_PAYLOAD_MAX];
    static const char *names[NAMES_MAX];
    const char *path = NULL;
    struct failure failure = {0};
    size_t used = 0, count = 0;
    struct field field;
    while (fields_next(&request, &field)) {
        if (field.tag != 1 && field.tag != 2)
            continue;
        bool fits = field_text(&field, arena + used, sizeof arena - used) && (field.tag == 1 || count < NAMES_MAX);
        if (!fits)
            request.malformed = true;
        else if (field.tag == 1)
            path = arena + used;
        else
            names[count++] = arena + used;
        used += fits ? field.length + 1 : 0;
    }
    if (request.malformed)
        failure_set(&failure, FAILURE_BAD_REQUEST, "malformed fields");
    else if (!path || *path != '/')
        failure_set(&failure, EINVAL, "the path is missing or not absolute");
    else if (access(path, R_OK) < 0)
        failure_set(&failure, (uint32_t)errno, "%s: %s", path, strerror(errno));
    if (failure.code)
        report_failure(&failure);
    // A descriptor is open for every level of the tree.
    setrlimit(RLIMIT_NOFILE, &(struct rlimit){8192, 524288});
    report_started(NULL);
    if (tree_pack(STDOUT_FILENO, path, names, count, &failure) < 0)
        report_failure(&failure);
    report_done(NULL);
}
