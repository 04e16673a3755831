#define _GNU_SOURCE
#include "ports.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "worker.h"

enum { LISTENERS_MAX = 512, STATE_ESTABLISHED = 0x01, STATE_LISTEN = 0x0a, STATE_UNCONNECTED = 0x07, COMMAND_MAX = 16 };

struct table {
    const char *path;
    uint8_t protocol;
    uint8_t family;
    unsigned state;
};

static const struct table tables[] = {
    {"/proc/net/tcp", 6, 4, STATE_LISTEN},
    {"/proc/net/tcp6", 6, 6, STATE_LISTEN},
    {"/proc/net/udp", 17, 4, STATE_UNCONNECTED},
    {"/proc/net/udp6", 17, 6, STATE_UNCONNECTED},
};

struct listener {
    uint8_t protocol;
    uint8_t family;
    uint16_t port;
    uint8_t address[16];
    unsigned long inode;
    uint32_t pid;
    char command[COMMAND_MAX];
};

// `  sl  local_address rem_address   st tx:rx tr:tm retrnsmt uid timeout inode`
static bool parse_line(const char *line, const struct table *table, struct listener *listener) {
    char hex[40];
    unsigned port, state;
    unsigned long inode;
    if (sscanf(line, " %*d: %32[0-9A-Fa-f]:%4X %*32[0-9A-Fa-f]:%*4X %2X %*s %*s %*s %*u %*u %lu", hex, &port, &state, &inode) != 4)
        return false;
    if (state != table->state || strlen(hex) != (table->family == 4 ? 8u : 32u))
        return false;
    *listener = (struct listener){.protocol = table->protocol, .family = table->family, .port = (uint16_t)port, .inode = inode};
    // Addresses are printed as 32-bit words of the machine's own byte order.
    for (size_t word = 0; word < strlen(hex) / 8; word++) {
        char digits[9] = {0};
        memcpy(digits, hex + 8 * word, 8);
        uint32_t value = (uint32_t)strtoul(digits, NULL, 16);
        memcpy(listener->address + 4 * word, &value, 4);
    }
    return true;
}

// Listening sockets come first in the tcp tables: the rest need not be read.
static int read_table(const struct table *table, struct listener *listeners, int limit) {
    char line[512];
    int count = 0;
    FILE *file = fopen(table->path, "re");
    if (!file)
        return 0;
    if (!fgets(line, sizeof line, file))
        line[0] = 0;
    while (count < limit && fgets(line, sizeof line, file)) {
        if (parse_line(line, table, &listeners[count]))
            count++;
        else if (table->protocol == 6)
            break;
    }
    fclose(file);
    return count;
}

bool port_has_listener(uint16_t port) {
    static struct listener listeners[LISTENERS_MAX];
    for (int i = 0; i < 2; i++) {
        int count = read_table(&tables[i], listeners, LISTENERS_MAX);
        while (count-- > 0)
            if (listeners[count].port == port)
                return true;
    }
    return false;
}

uint64_t ports_count_connections(uint16_t port) {
    char line[512];
    uint64_t count = 0;
    for (int i = 0; i < 2; i++) {
        unsigned local, state;
        FILE *file = fopen(tables[i].path, "re");
        while (file && fgets(line, sizeof line, file))
            if (sscanf(line, " %*d: %*32[0-9A-Fa-f]:%4X %*32[0-9A-Fa-f]:%*4X %2X", &local, &state) == 2)
                count += local == port && state == STATE_ESTABLISHED;
        if (file)
            fclose(file);
    }
    return count;
}

static void read_command(long pid, char command[COMMAND_MAX]) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%ld/comm", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t size = read(fd, command, COMMAND_MAX - 1);
    close(fd);
    command[size > 0 ? size : 0] = 0;
    command[strcspn(command, "\n")] = 0;
}

static void match_process(long pid, struct listener *listeners, int count) {
    char path[64], link[64];
    struct dirent *entry;
    snprintf(path, sizeof path, "/proc/%ld/fd", pid);
    DIR *descriptors = opendir(path);
    while (descriptors && (entry = readdir(descriptors))) {
        unsigned long inode;
        ssize_t size = readlinkat(dirfd(descriptors), entry->d_name, link, sizeof link - 1);
        link[size > 0 ? size : 0] = 0;
        if (sscanf(link, "socket:[%lu]", &inode) != 1)
            continue;
        for (int i = 0; i < count; i++) {
            if (listeners[i].inode != inode || listeners[i].pid)
                continue;
            listeners[i].pid = (uint32_t)pid;
            read_command(pid, listeners[i].command);
        }
    }
    if (descriptors)
        closedir(descriptors);
}

static void match_processes(struct listener *listeners, int count) {
    struct dirent *entry;
    DIR *processes = opendir("/proc");
    while (processes && (entry = readdir(processes))) {
        long pid = strtol(entry->d_name, NULL, 10);
        if (pid > 0)
            match_process(pid, listeners, count);
    }
    if (processes)
        closedir(processes);
}

void ports_list(struct fields request) {
    static struct listener listeners[LISTENERS_MAX];
    static uint8_t bytes[FRAME_PAYLOAD_MAX - 4];
    struct builder fields = builder_in(bytes, sizeof bytes);
    int count = 0;
    (void)request;
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
        count += read_table(&tables[i], listeners + count, LISTENERS_MAX - count);
    match_processes(listeners, count);
    for (int i = 0; i < count && !fields.overflowed; i++) {
        const struct listener *listener = &listeners[i];
        uint8_t item[8 + 16 + COMMAND_MAX] = {listener->protocol, listener->family};
        size_t length = 8, address = listener->family == 4 ? 4 : 16;
        store_u16(item + 2, listener->port);
        store_u32(item + 4, listener->pid);
        memcpy(item + length, listener->address, address);
        length += address;
        memcpy(item + length, listener->command, strlen(listener->command));
        build_bytes(&fields, 1, item, length + strlen(listener->command));
    }
    report_done(&fields);
}
