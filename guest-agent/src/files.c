#define _GNU_SOURCE
#include "files.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "worker.h"

enum { COPY_SIZE = 65536, WRITE_MAKE_PARENTS = 1, STAT_FOLLOW = 1 };

struct file_request {
    char path[PATH_MAX];
    uint64_t number[8]; // by field number
    bool given[8];
};

static noreturn void fail_errno(const char *path) {
    struct failure failure;
    failure_set(&failure, (uint32_t)errno, "%s: %s", path, strerror(errno));
    report_failure(&failure);
}

static void parse_request(struct file_request *parsed, struct fields request) {
    struct failure failure;
    struct field field;
    *parsed = (struct file_request){0};
    while (fields_next(&request, &field)) {
        bool fine = true;
        if (field.tag == 1)
            fine = field_text(&field, parsed->path, sizeof parsed->path);
        else if (field.tag < 8)
            fine = parsed->given[field.tag] = field_number(&field, &parsed->number[field.tag]);
        if (!fine)
            request.malformed = true;
    }
    if (request.malformed) {
        failure_set(&failure, FAILURE_BAD_REQUEST, "malformed fields");
        report_failure(&failure);
    }
    if (parsed->path[0] != '/') {
        failure_set(&failure, EINVAL, "the path is missing or not absolute");
        report_failure(&failure);
    }
}

void file_read(struct fields request) {
    static struct file_request parsed;
    static uint8_t buffer[COPY_SIZE];
    struct stat status;
    parse_request(&parsed, request);
    // O_NONBLOCK: opening a FIFO must not wait for its writer; regular files do not care.
    int fd = open(parsed.path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 || fstat(fd, &status) < 0)
        fail_errno(parsed.path);
    if (S_ISDIR(status.st_mode)) {
        errno = EISDIR;
        fail_errno(parsed.path);
    }
    fcntl(fd, F_SETFL, 0);
    if (parsed.given[2] && lseek(fd, (off_t)parsed.number[2], SEEK_SET) < 0)
        fail_errno(parsed.path);
    uint8_t bytes[64];
    struct builder fields = builder_in(bytes, sizeof bytes);
    build_number(&fields, 1, (uint64_t)status.st_size);
    build_number(&fields, 2, status.st_mode);
    report_started(&fields);
    uint64_t left = parsed.given[3] ? parsed.number[3] : UINT64_MAX;
    while (left) {
        ssize_t got = read(fd, buffer, left < sizeof buffer ? left : sizeof buffer);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            fail_errno(parsed.path);
        if (got == 0)
            break;
        if (!write_all(STDOUT_FILENO, buffer, (size_t)got))
            _exit(1);
        left -= (uint64_t)got;
    }
    report_done(NULL);
}

int make_directories(const char *path, struct failure *failure) {
    char prefix[PATH_MAX];
    size_t length = strlen(path);
    if (length >= sizeof prefix)
        return failure_set(failure, ENAMETOOLONG, "%s", strerror(ENAMETOOLONG));
    memcpy(prefix, path, length + 1);
    for (char *at = prefix + 1;; at++) {
        if (*at != '/' && *at != 0)
            continue;
        char end = *at;
        *at = 0;
        if (mkdir(prefix, 0755) < 0 && errno != EEXIST && errno != EISDIR && errno != EROFS)
            return failure_set(failure, (uint32_t)errno, "%s: %s", prefix, strerror(errno));
        *at = end;
        if (!end)
            return 0;
    }
}

static char half_written[PATH_MAX + 16];

static void remove_half_written(int signal) {
    (void)signal;
    unlink(half_written);
    _exit(1);
}

static noreturn void fail_and_remove(void) {
    int error = errno;
    unlink(half_written);
    errno = error;
    fail_errno(half_written);
}

// Beside the target, so that the rename stays on one file system.
static int create_beside(const char *path, mode_t mode) {
    struct sigaction remove = {.sa_handler = remove_half_written};
    snprintf(half_written, sizeof half_written, "%s.%d.part", path, (int)getpid());
    sigaction(SIGTERM, &remove, NULL);
    return open(half_written, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode & 0777);
}

static void copy_stdin(int fd, uint64_t *total) {
    static uint8_t buffer[COPY_SIZE];
    for (;;) {
        ssize_t got = read(STDIN_FILENO, buffer, sizeof buffer);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            fail_and_remove();
        if (got == 0)
            return;
        if (!write_all(fd, buffer, (size_t)got))
            fail_and_remove();
        *total += (uint64_t)got;
    }
}

static void sync_parent(const char *path) {
    char parent[PATH_MAX];
    snprintf(parent, sizeof parent, "%s", path);
    strrchr(parent, '/')[parent[1] && strrchr(parent, '/') == parent] = 0;
    int fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        fsync(fd); // without it a crash may lose the name, though not the file
        close(fd);
    }
}

void file_write(struct fields request) {
    static struct file_request parsed;
    struct failure failure;
    struct stat status;
    parse_request(&parsed, request);
    if (parsed.given[5] && parsed.number[5] & WRITE_MAKE_PARENTS) {
        char parent[PATH_MAX];
        snprintf(parent, sizeof parent, "%s", parsed.path);
        *strrchr(parent, '/') = 0;
        if (*parent && make_directories(parent, &failure) < 0)
            report_failure(&failure);
    }
    if (stat(parsed.path, &status) == 0 && S_ISDIR(status.st_mode)) {
        errno = EISDIR; // before the bytes travel, not at the rename
        fail_errno(parsed.path);
    }
    mode_t mode = parsed.given[2] ? (mode_t)parsed.number[2] & 07777 : 0644;
    int fd = create_beside(parsed.path, mode);
    if (fd < 0)
        fail_errno(half_written);
    report_started(NULL);
    uint64_t total = 0;
    copy_stdin(fd, &total);
    if (worker_is_abandoned())
        remove_half_written(SIGTERM);
    uid_t uid = parsed.given[3] ? (uid_t)parsed.number[3] : (uid_t)-1;
    gid_t gid = parsed.given[4] ? (gid_t)parsed.number[4] : (gid_t)-1;
    // chown before chmod: it clears the setuid bits.
    if (((parsed.given[3] || parsed.given[4]) && fchown(fd, uid, gid) < 0) || fchmod(fd, mode) < 0 || fsync(fd) < 0 ||
        rename(half_written, parsed.path) < 0)
        fail_and_remove();
    sync_parent(parsed.path);
    uint8_t bytes[32];
    struct builder fields = builder_in(bytes, sizeof bytes);
    build_number(&fields, 1, total);
    report_done(&fields);
}

static void build_entry(struct builder *entry, const char *name, size_t name_length, const struct stat *status,
                        const char *target, size_t target_length) {
    build_bytes(entry, 1, name, name_length);
    build_number(entry, 2, status->st_mode);
    build_number(entry, 3, (uint64_t)status->st_size);
    build_number(entry, 4, status->st_uid);
    build_number(entry, 5, status->st_gid);
    build_number(entry, 6, (uint64_t)(status->st_mtim.tv_sec * 1000000000LL + status->st_mtim.tv_nsec));
    if (target_length)
        build_bytes(entry, 7, target, target_length);
}

static size_t read_target(int directory, const char *name, const struct stat *status, char *target, size_t size) {
    ssize_t length = S_ISLNK(status->st_mode) ? readlinkat(directory, name, target, size) : 0;
    return length > 0 ? (size_t)length : 0;
}

void file_stat(struct fields request) {
    static struct file_request parsed;
    static uint8_t bytes[3 * PATH_MAX];
    static char target[PATH_MAX];
    struct stat status;
    parse_request(&parsed, request);
    bool follow = parsed.given[2] && parsed.number[2] & STAT_FOLLOW;
    if ((follow ? stat : lstat)(parsed.path, &status) < 0)
        fail_errno(parsed.path);
    const char *slash = strrchr(parsed.path, '/');
    const char *name = slash[1] ? slash + 1 : parsed.path;
    struct builder entry = builder_in(bytes + FIELD_HEADER, sizeof bytes - FIELD_HEADER);
    size_t length = read_target(AT_FDCWD, parsed.path, &status, target, sizeof target);
    build_entry(&entry, name, strlen(name), &status, target, length);
    bytes[0] = 1;
    store_u32(bytes + 1, (uint32_t)entry.length);
    report_done(&(struct builder){.buffer = bytes, .length = FIELD_HEADER + entry.length});
}

void file_list(struct fields request) {
    static struct file_request parsed;
    static uint8_t bytes[3 * PATH_MAX];
    static char target[PATH_MAX];
    struct dirent *item;
    parse_request(&parsed, request);
    DIR *directory = opendir(parsed.path);
    if (!directory)
        fail_errno(parsed.path);
    report_started(NULL);
    while (errno = 0, item = readdir(directory)) {
        struct stat status;
        if (strcmp(item->d_name, ".") == 0 || strcmp(item->d_name, "..") == 0)
            continue;
        if (fstatat(dirfd(directory), item->d_name, &status, AT_SYMLINK_NOFOLLOW) < 0)
            continue; // it went away meanwhile
        size_t length = read_target(dirfd(directory), item->d_name, &status, target, sizeof target);
        struct builder entry = builder_in(bytes + 4, sizeof bytes - 4);
        build_entry(&entry, item->d_name, strlen(item->d_name), &status, target, length);
        store_u32(bytes, (uint32_t)entry.length);
        if (!write_all(STDOUT_FILENO, bytes, 4 + entry.length))
            _exit(1);
    }
    if (errno)
        fail_errno(parsed.path);
    report_done(NULL);
}
