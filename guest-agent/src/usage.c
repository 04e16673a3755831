#define _GNU_SOURCE
#include "usage.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "ports.h"
#include "worker.h"

enum { REPORT_MAX = 1024, INTERFACE_MAX = 32 };

// A card of the machine has a device behind it; bridges, tunnels and lo, which count its bytes again, have none.
static bool is_card(const char *interface) {
    char path[96];
    snprintf(path, sizeof path, "/sys/class/net/%s/device", interface);
    return access(path, F_OK) == 0;
}

// `  eth0: rx bytes packets errs drop fifo frame compressed multicast tx bytes …`, proc_pid_net(5)
static void report_network(struct builder *fields) {
    char line[512], interface[INTERFACE_MAX];
    uint64_t received, sent, received_all = 0, sent_all = 0;
    FILE *file = fopen("/proc/net/dev", "re");
    if (!file)
        return;
    while (fgets(line, sizeof line, file)) {
        if (sscanf(line, " %31[^:]: %" SCNu64 " %*u %*u %*u %*u %*u %*u %*u %" SCNu64, interface, &received, &sent) != 3)
            continue;
        if (is_card(interface)) {
            received_all += received;
            sent_all += sent;
        }
    }
    fclose(file);
    build_number(fields, 1, received_all);
    build_number(fields, 2, sent_all);
}

static void report_file_system(struct builder *fields, const char *path) {
    struct statvfs room;
    uint8_t item[24 + 32];
    size_t length = strlen(path);
    if (statvfs(path, &room) < 0)
        return;
    store_u64(item, (uint64_t)room.f_blocks * room.f_frsize);
    store_u64(item + 8, (uint64_t)room.f_bfree * room.f_frsize);
    store_u64(item + 16, (uint64_t)room.f_bavail * room.f_frsize);
    memcpy(item + 24, path, length);
    build_bytes(fields, 3, item, 24 + length);
}

static bool is_mounted(const char *path) {
    struct stat root, other;
    return stat("/", &root) == 0 && stat(path, &other) == 0 && root.st_dev != other.st_dev;
}

void usage_report(struct fields request) {
    static uint8_t bytes[REPORT_MAX];
    struct builder fields = builder_in(bytes, sizeof bytes);
    struct field field;
    uint64_t port = 0;
    while (fields_next(&request, &field))
        if (field.tag == 1 && (!field_number(&field, &port) || port == 0 || port > UINT16_MAX))
            request.malformed = true;
    if (request.malformed) {
        struct failure failure;
        failure_set(&failure, EINVAL, "%s", "a port is a number from 1 to 65535");
        report_failure(&failure);
    }
    report_network(&fields);
    report_file_system(&fields, "/");
    if (is_mounted("/root"))
        report_file_system(&fields, "/root");
    if (port)
        build_number(&fields, 4, ports_count_connections((uint16_t)port));
    report_done(&fields);
}
