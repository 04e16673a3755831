#define _GNU_SOURCE
#include "place.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include "trace.h"

enum { COMPARE_MAX = 65536 };

// Compares with what is there, so that a second boot writes nothing.
static bool has_content(int directory, const char *name, int source, const void *text, off_t length, const struct stat *wanted) {
    static uint8_t old[COMPARE_MAX], new[COMPARE_MAX];
    struct stat status;
    int fd = length > COMPARE_MAX ? -1 : openat(directory, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool same = fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && status.st_size == length && status.st_nlink == 1 &&
                status.st_uid == wanted->st_uid && status.st_gid == wanted->st_gid &&
                (status.st_mode & 07777) == (wanted->st_mode & 07777) && pread(fd, old, (size_t)length, 0) == length;
    if (same && !text)
        same = pread(source, new, (size_t)length, 0) == length;
    close(fd);
    return same && memcmp(old, text ? text : new, (size_t)length) == 0;
}

// A new file in place of the old one, whatever that was: a symbolic link is replaced and not followed. Not by a rename over it: ext4
// then starts to write the new file's data at once (auto_da_alloc), which is most of what placing a file costs. What a crash
// takes away here, the next boot brings again. From a descriptor, or from text.
static bool replace_file(int directory, const char *name, int source, const void *text, const struct stat *wanted) {
    off_t left = wanted->st_size;
    if (has_content(directory, name, source, text, left, wanted))
        return true;
    unlinkat(directory, name, 0);
    int target = openat(directory, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (target < 0)
        return false;
    while (left > 0) {
        ssize_t sent = text ? write(target, (const char *)text + (wanted->st_size - left), (size_t)left)
                            : sendfile(target, source, NULL, (size_t)left);
        if (sent <= 0)
            break;
        left -= sent;
    }
    bool owned = wanted->st_uid == 0 && wanted->st_gid == 0;
    bool written = left == 0 && (owned || fchown(target, wanted->st_uid, wanted->st_gid) == 0) &&
                   fchmod(target, wanted->st_mode & 07777) == 0;
    close(target);
    return written;
}

static void copy_file(int from, int to, const char *name, const struct stat *status) {
    int source = openat(from, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (source < 0 || !replace_file(to, name, source, NULL, status))
        log_error("cannot place %s: %s", name, strerror(errno));
    if (source >= 0)
        close(source);
}

static void copy_link(int from, int to, const char *name, const struct stat *status) {
    char target[4096];
    ssize_t length = readlinkat(from, name, target, sizeof target - 1);
    if (length < 0)
        return;
    target[length] = 0;
    unlinkat(to, name, 0);
    if (symlinkat(target, to, name) < 0 || fchownat(to, name, status->st_uid, status->st_gid, AT_SYMLINK_NOFOLLOW) < 0)
        log_error("cannot place %s: %s", name, strerror(errno));
}

// A directory that is there already stays as it is: /etc and /root are the image's. A link to a directory is followed.
static int enter_directory(int to, const char *name, const struct stat *status) {
    bool made = mkdirat(to, name, 0700) == 0;
    int directory = openat(to, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0)
        log_error("cannot place %s: %s", name, strerror(errno));
    else if (made && (fchown(directory, status->st_uid, status->st_gid) < 0 || fchmod(directory, status->st_mode & 07777) < 0))
        log_error("cannot own %s: %s", name, strerror(errno));
    return directory;
}

static void copy_tree(int from, int to) {
    DIR *items = fdopendir(from);
    struct dirent *item;
    while (items && (item = readdir(items))) {
        const char *name = item->d_name;
        struct stat status;
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || fstatat(from, name, &status, AT_SYMLINK_NOFOLLOW) < 0)
            continue;
        if (S_ISREG(status.st_mode)) {
            copy_file(from, to, name, &status);
        } else if (S_ISLNK(status.st_mode)) {
            copy_link(from, to, name, &status);
        } else if (S_ISDIR(status.st_mode)) {
            int below = enter_directory(to, name, &status);
            int source = below < 0 ? -1 : openat(from, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            if (source >= 0)
                copy_tree(source, below);
            if (below >= 0)
                close(below);
        }
    }
    if (items)
        closedir(items);
}

void place_files(int source) {
    int root = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int own = fcntl(source, F_DUPFD_CLOEXEC, 3);
    if (root >= 0 && own >= 0)
        copy_tree(own, root);
    if (root >= 0)
        close(root);
}

static void replace_text(const char *path, const char *text, size_t length) {
    struct stat wanted = {.st_mode = 0644, .st_size = (off_t)length};
    if (!replace_file(AT_FDCWD, path, -1, text, &wanted))
        log_error("cannot write %s: %s", path, strerror(errno));
}

// Keeps the image's lines but an earlier 127.0.1.1.
static void write_hosts(const char *hostname) {
    static char old[65536], text[sizeof old + 256];
    size_t length = 0;
    ssize_t got = 0;
    int fd = open("/etc/hosts", O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        got = read(fd, old, sizeof old - 1);
        close(fd);
    }
    if (got == (ssize_t)sizeof old - 1)
        return; // somebody's own block list: better left alone than cut
    old[got > 0 ? got : 0] = 0;
    if (got <= 0)
        length = (size_t)snprintf(text, sizeof text, "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for (const char *line = old; *line;) {
        size_t size = strcspn(line, "\n");
        if (strncmp(line, "127.0.1.1", 9) != 0 || (line[9] != ' ' && line[9] != '\t'))
            length += (size_t)snprintf(text + length, sizeof text - length, "%.*s\n", (int)size, line);
        line += size + (line[size] == '\n');
    }
    length += (size_t)snprintf(text + length, sizeof text - length, "127.0.1.1\t%s\n", hostname);
    replace_text("/etc/hosts", text, length);
}

void place_identity(const struct config *config) {
    char text[512];
    int length = 0;
    if (mkdir("/etc", 0755) < 0 && errno != EEXIST)
        log_error("/etc: %s", strerror(errno));
    if (*config->hostname) {
        sethostname(config->hostname, strlen(config->hostname));
        length = snprintf(text, sizeof text, "%s\n", config->hostname);
        replace_text("/etc/hostname", text, (size_t)length);
        write_hosts(config->hostname);
    }
    length = 0;
    for (int i = 0; i < config->resolver_count; i++) {
        const uint8_t *address = config->resolvers[i];
        length += snprintf(text + length, sizeof text - (size_t)length, "nameserver %u.%u.%u.%u\n", address[0], address[1],
                           address[2], address[3]);
    }
    if (length)
        replace_text("/etc/resolv.conf", text, (size_t)length);
}

void remove_tree(int directory) {
    struct stat here, status;
    struct dirent *item;
    DIR *items = fdopendir(directory);
    if (!items || fstat(directory, &here) < 0)
        return;
    while ((item = readdir(items))) {
        const char *name = item->d_name;
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW) < 0)
            continue;
        if (status.st_dev != here.st_dev)
            continue; // the real root is mounted there
        if (S_ISDIR(status.st_mode)) {
            int below = openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            if (below >= 0)
                remove_tree(below);
            unlinkat(directory, name, AT_REMOVEDIR);
        } else {
            unlinkat(directory, name, 0);
        }
    }
    closedir(items);
}
