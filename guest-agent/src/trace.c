#include "trace.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int log_fd = -1;

uint64_t uptime_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

void stage_reached(struct stages *stages, const char *name) {
    if (stages->count == STAGES_MAX)
        return;
    snprintf(stages->at[stages->count].name, sizeof stages->at[0].name, "%s", name);
    stages->at[stages->count++].uptime_us = uptime_us();
}

void log_to_stderr(void) { log_fd = STDERR_FILENO; }

void log_error(const char *format, ...) {
    char line[512];
    int length = snprintf(line, sizeof line, "<3>banger: ");
    va_list arguments;
    va_start(arguments, format);
    int body = vsnprintf(line + length, sizeof line - (size_t)length - 1, format, arguments);
    va_end(arguments);
    if (body < 0)
        return;
    length += body;
    if (length > (int)sizeof line - 2)
        length = (int)sizeof line - 2;
    line[length++] = '\n';
    // /dev/kmsg is opened per line: before devtmpfs is mounted, and in a process that has just closed everything, nothing else would work.
    int fd = log_fd >= 0 ? log_fd : open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    if (write(fd, line, (size_t)length) < 0) {
        // There is nowhere left to say it.
    }
    if (fd != log_fd)
        close(fd);
}
