#define _GNU_SOURCE
#include "methods.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "exec.h"
#include "files.h"
#include "ports.h"
#include "session_methods.h"
#include "tree.h"
#include "usage.h"
#include "worker.h"

#ifndef BANGER_AGENT_VERSION
#define BANGER_AGENT_VERSION "1"
#endif

enum method {
    METHOD_HEALTH = 1,
    METHOD_EXEC,
    METHOD_FILE_READ,
    METHOD_FILE_WRITE,
    METHOD_FILE_STAT,
    METHOD_FILE_LIST,
    METHOD_TREE_GET,
    METHOD_TREE_PUT,
    METHOD_PORTS,
    METHOD_WAIT_PORT,
    METHOD_SYNC,
    METHOD_POWER_OFF,
    METHOD_REBOOT,
    METHOD_CLOCK,
    METHOD_USAGE,
    METHOD_SESSION_START,
    METHOD_SESSION_LIST,
    METHOD_SESSION_READ,
    METHOD_SESSION_WRITE,
    METHOD_SESSION_SIGNAL,
    METHOD_SESSION_RESIZE,
    METHOD_SESSION_STOP,
    METHOD_SESSION_REMOVE,
    METHOD_SESSION_WATCH,
};

enum { PORT_POLL_FIRST_US = 5000, PORT_POLL_US = 20000, POWER_GRACE_MS = 10000 };

static const char *mode_name(enum agent_mode mode) {
    const char *const names[] = {[MODE_HANDOVER] = "handover", [MODE_RESIDENT] = "resident", [MODE_TEST] = "test"};
    return names[mode];
}

static void read_text(const char *path, char *text, size_t size) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? 0 : read(fd, text, size - 1);
    if (fd >= 0)
        close(fd);
    text[got > 0 ? got : 0] = 0;
}

static void build_boot_id(struct builder *fields, uint8_t tag) {
    char id[64];
    read_text("/proc/sys/kernel/random/boot_id", id, sizeof id);
    id[strcspn(id, "\n")] = 0;
    build_text(fields, tag, id);
}

void method_welcome(const struct agent_state *state, struct builder *fields) {
    build_text(fields, 1, BANGER_AGENT_VERSION);
    build_boot_id(fields, 2);
    build_number(fields, 3, state->ready_us);
    for (int i = 0; i < state->stages->count; i++) {
        uint8_t stage[sizeof state->stages->at[0].name + 8] = {0};
        size_t length = strlen(state->stages->at[i].name) + 1;
        memcpy(stage, state->stages->at[i].name, length);
        store_u64(stage + length, state->stages->at[i].uptime_us);
        build_bytes(fields, 5, stage, length + 8);
    }
}

static uint64_t meminfo_bytes(const char *text, const char *key) {
    const char *at = strstr(text, key);
    return at ? strtoull(at + strlen(key), NULL, 10) * 1024 : 0;
}

static void health(struct agent_state *state, struct channel *channel) {
    char text[4096];
    uint8_t bytes[512];
    unsigned long whole = 0, hundredths = 0, pages = 0;
    struct builder fields = builder_in(bytes, sizeof bytes);
    build_number(&fields, 1, uptime_us());
    build_boot_id(&fields, 2);
    read_text("/proc/loadavg", text, sizeof text);
    sscanf(text, "%lu.%2lu", &whole, &hundredths);
    build_number(&fields, 3, whole * 100 + hundredths);
    read_text("/proc/meminfo", text, sizeof text);
    build_number(&fields, 4, meminfo_bytes(text, "MemTotal:"));
    build_number(&fields, 5, meminfo_bytes(text, "MemAvailable:"));
    read_text("/proc/self/statm", text, sizeof text);
    sscanf(text, "%*u %lu", &pages);
    build_number(&fields, 6, (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE));
    build_text(&fields, 7, mode_name(state->mode));
    channel_end(channel, 0, &fields);
}

// Numbers of a request by tag; false and an END when a field is malformed.
static bool parse_numbers(struct channel *channel, struct fields request, uint64_t *numbers, bool *given, size_t count) {
    struct field field;
    while (fields_next(&request, &field))
        if (field.tag < count && !(given[field.tag] = field_number(&field, &numbers[field.tag])))
            request.malformed = true;
    if (request.malformed)
        channel_end_text(channel, FAILURE_BAD_REQUEST, "malformed fields");
    return !request.malformed;
}

// The kernel tells nobody when a socket starts to listen; one look at the tables costs some 50 µs.
static void poll_port(struct channel *channel, uint64_t now_us) {
    if (port_has_listener((uint16_t)channel->argument))
        channel_end(channel, 0, NULL);
    else if (now_us >= channel->deadline_us)
        channel_end_text(channel, ETIMEDOUT, "nothing listens on port %d", (int)channel->argument);
    else
        channel->tick_at_us = now_us + PORT_POLL_US < channel->deadline_us ? now_us + PORT_POLL_US : channel->deadline_us;
    if (channel->ended)
        channel->tick = NULL;
}

static void wait_port(struct channel *channel, struct fields request) {
    uint64_t numbers[3] = {0};
    bool given[3] = {false};
    if (!parse_numbers(channel, request, numbers, given, 3))
        return;
    if (!given[1] || !given[2] || numbers[1] == 0 || numbers[1] > UINT16_MAX) {
        channel_end_text(channel, EINVAL, "a port and a timeout are required");
        return;
    }
    uint64_t now = uptime_us();
    uint64_t limit = numbers[2] < 86400000 ? numbers[2] : 86400000;
    channel->argument = numbers[1];
    channel->deadline_us = now + limit * 1000;
    channel->tick = poll_port;
    poll_port(channel, now);
    if (channel->tick && channel->tick_at_us > now + PORT_POLL_FIRST_US)
        channel->tick_at_us = now + PORT_POLL_FIRST_US;
}

static void sync_disks(struct fields request) {
    (void)request;
    sync();
    report_done(NULL);
}

static void power(struct agent_state *state, struct channel *channel, struct fields request, enum power power) {
    uint64_t numbers[2] = {0, POWER_GRACE_MS};
    bool given[2] = {false};
    if (state->mode == MODE_TEST) {
        channel_end_text(channel, EPERM, "this agent runs for a test and is not a guest's");
        return;
    }
    if (!parse_numbers(channel, request, numbers, given, 2))
        return;
    state->power_requested = true;
    state->power = power;
    state->power_grace_us = (numbers[1] < 86400000 ? numbers[1] : 86400000) * 1000;
    channel_end(channel, 0, NULL);
}

static void wall_clock(struct agent_state *state, struct channel *channel, struct fields request) {
    uint64_t numbers[2] = {0};
    bool given[2] = {false};
    struct timespec now;
    uint8_t bytes[32];
    struct builder fields = builder_in(bytes, sizeof bytes);
    if (!parse_numbers(channel, request, numbers, given, 2))
        return;
    if (given[1]) {
        now = (struct timespec){(time_t)(numbers[1] / 1000000000), (long)(numbers[1] % 1000000000)};
        errno = EPERM;
        if (state->mode == MODE_TEST || clock_settime(CLOCK_REALTIME, &now) < 0) {
            channel_end_text(channel, (uint32_t)errno, "clock_settime: %s", strerror(errno));
            return;
        }
    }
    clock_gettime(CLOCK_REALTIME, &now);
    build_number(&fields, 1, (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec);
    channel_end(channel, 0, &fields);
}

void method_open(struct agent_state *state, struct channel *channel, uint16_t method, struct fields request) {
    static const struct {
        worker_function *function;
        int streams;
    } workers[] = {
        [METHOD_FILE_READ] = {file_read, 1 << 1}, [METHOD_FILE_WRITE] = {file_write, 1 << 0}, [METHOD_FILE_STAT] = {file_stat, 0},
        [METHOD_FILE_LIST] = {file_list, 1 << 1}, [METHOD_TREE_GET] = {tree_get, 1 << 1},     [METHOD_TREE_PUT] = {tree_put, 1 << 0},
        [METHOD_PORTS] = {ports_list, 0},         [METHOD_SYNC] = {sync_disks, 0},            [METHOD_USAGE] = {usage_report, 0},
    };
    static void (*const sessions[])(struct channel *, struct fields) = {
        [METHOD_SESSION_START] = session_method_start,   [METHOD_SESSION_LIST] = session_method_list,
        [METHOD_SESSION_READ] = session_method_read,     [METHOD_SESSION_WRITE] = session_method_write,
        [METHOD_SESSION_SIGNAL] = session_method_signal, [METHOD_SESSION_RESIZE] = session_method_resize,
        [METHOD_SESSION_STOP] = session_method_stop,     [METHOD_SESSION_REMOVE] = session_method_remove,
        [METHOD_SESSION_WATCH] = session_method_watch,
    };
    if (method < sizeof workers / sizeof *workers && workers[method].function) {
        worker_start(channel, workers[method].function, request, workers[method].streams);
        return;
    }
    if (method < sizeof sessions / sizeof *sessions && sessions[method]) {
        sessions[method](channel, request);
        return;
    }
    switch (method) {
    case METHOD_HEALTH:
        health(state, channel);
        break;
    case METHOD_EXEC:
        exec_start(channel, request);
        break;
    case METHOD_WAIT_PORT:
        wait_port(channel, request);
        break;
    case METHOD_POWER_OFF:
        power(state, channel, request, POWER_OFF);
        break;
    case METHOD_REBOOT:
        power(state, channel, request, POWER_REBOOT);
        break;
    case METHOD_CLOCK:
        wall_clock(state, channel, request);
        break;
    default:
        channel_end_text(channel, FAILURE_UNKNOWN_METHOD, "unknown method %u", method);
    }
}
