#define _GNU_SOURCE
#include "disks.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "trace.h"
#include "uevents.h"

enum { DISK_WAIT_US = 10000000 };

// Not in linux/*.h: fs/ext4/ext4.h has it as _IOW('f', 16, __u64).
#define EXT4_IOC_RESIZE_FS _IOW('f', 16, uint64_t)

static bool serial_is(int blocks, const char *disk, const char *wanted) {
    char path[300], serial[64];
    snprintf(path, sizeof path, "%s/serial", disk);
    int fd = openat(blocks, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t size = read(fd, serial, sizeof serial - 1);
    close(fd);
    serial[size > 0 ? size : 0] = 0;
    serial[strcspn(serial, "\n")] = 0;
    return size > 0 && strcmp(serial, wanted) == 0;
}

static bool look_for(const char *wanted, char *path, unsigned path_size) {
    if (strncmp(wanted, "/dev/", 5) == 0) {
        snprintf(path, path_size, "%s", wanted);
        return access(path, F_OK) == 0;
    }
    DIR *blocks = opendir("/sys/block");
    struct dirent *entry;
    bool found = false;
    while (blocks && !found && (entry = readdir(blocks))) {
        if (entry->d_name[0] == '.' || !serial_is(dirfd(blocks), entry->d_name, wanted))
            continue;
        snprintf(path, path_size, "/dev/%s", entry->d_name);
        found = access(path, F_OK) == 0; // sysfs knows a disk a moment before devtmpfs
    }
    if (blocks)
        closedir(blocks);
    return found;
}

bool disk_find(const char *wanted, int uevents, char *path, unsigned path_size) {
    uint64_t deadline = uptime_us() + DISK_WAIT_US;
    while (!look_for(wanted, path, path_size)) {
        if (uptime_us() >= deadline) {
            log_error("no disk %s", wanted);
            return false;
        }
        uevents_wait(uevents, 1000);
    }
    return true;
}

bool disk_mount(const char *device, const char *target, unsigned long flags) {
    if (mount(device, target, "ext4", flags, NULL) == 0)
        return true;
    log_error("mount %s on %s: %s", device, target, strerror(errno));
    return false;
}

void disk_grow(const char *target) {
    char node[64];
    struct stat status;
    struct statfs file_system;
    uint64_t bytes;
    int directory = open(target, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0 || fstat(directory, &status) < 0 || fstatfs(directory, &file_system) < 0)
        return;
    snprintf(node, sizeof node, "/sys/dev/block/%u:%u/size", major(status.st_dev), minor(status.st_dev));
    FILE *file = fopen(node, "re");
    unsigned long long sectors = 0;
    if (file) {
        if (fscanf(file, "%llu", &sectors) != 1)
            sectors = 0;
        fclose(file);
    }
    bytes = (uint64_t)sectors * 512;
    uint64_t blocks = bytes / (uint64_t)file_system.f_bsize;
    if (blocks && ioctl(directory, EXT4_IOC_RESIZE_FS, &blocks) < 0)
        log_error("grow %s: %s", target, strerror(errno));
    close(directory);
}
