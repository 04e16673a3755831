#define _GNU_SOURCE
#include "modules.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "trace.h"

enum { MODULE_INIT_COMPRESSED_FILE = 4 };

static void load(int directory, const char *name) {
    size_t length = strlen(name);
    bool plain = length > 3 && strcmp(name + length - 3, ".ko") == 0;
    int fd = openat(directory, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || (syscall(SYS_finit_module, fd, "", plain ? 0 : MODULE_INIT_COMPRESSED_FILE) < 0 && errno != EEXIST))
        log_error("module %s: %s", name, strerror(errno));
    if (fd >= 0)
        close(fd);
}

static int is_module(const struct dirent *entry) { return strstr(entry->d_name, ".ko") != NULL; }

void modules_load(int directory, const char *only, const char *but) {
    struct dirent **names;
    char path[32]; // scandir wants one, and the initramfs has none any more once root is mounted over it
    snprintf(path, sizeof path, "/proc/self/fd/%d", directory);
    int count = scandir(path, &names, is_module, alphasort);
    for (int i = 0; i < count; i++) {
        if ((!only || strstr(names[i]->d_name, only)) && !(but && strstr(names[i]->d_name, but)))
            load(directory, names[i]->d_name);
        free(names[i]);
    }
    if (count >= 0)
        free(names);
}
