// Owns: one channel's life: its process, pipes, windows, the stdin bytes that the process has not taken yet, and its END.
// Refuses: knowing methods. A method starts a process or sets the END; everything after that is here.
// Invariants: nothing is read from a pipe without window and room in the queue; stdin holds at most FRAME_WINDOW bytes;
// END is queued once, after the process was seen dead, its data and its EOFs were queued.
#pragma once

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "failure.h"
#include "fields.h"
#include "outqueue.h"

struct output {
    int fd; // -1: no such stream, or at its end
    uint32_t window;
    bool limited; // the command is gone: only `left` bytes more are delivered
    uint32_t left;
};

struct input {
    int fd;
    bool exists;
    bool ended;            // the host sent EOF
    bool broken;           // the command closed its end: bytes are dropped but still granted
    uint8_t *ring;         // FRAME_WINDOW bytes, allocated when the command first lags behind
    uint32_t start;
    uint32_t length;
    uint32_t outstanding; // received and not granted again
    uint32_t ungranted;   // taken by the command, grant not sent yet
};

struct server;

enum channel_host { HOST_PRESENT, HOST_ABANDONED, HOST_GONE };

struct channel {
    uint32_t id;
    enum channel_host host; // ABANDONED: CLOSE came, only END may still be sent. GONE: nothing may be sent
    bool started;
    bool ended; // an END is set
    uint32_t end_code;
    uint8_t *end_fields;
    uint32_t end_length;

    pid_t pid; // 0: no process
    bool exited;
    int exit_code; // si_code and si_status of waitid(2)
    int exit_status;
    bool command;     // a command of exec: its own process group, its status is the END
    bool pty;
    int report_fd;    // SOCK_SEQPACKET from the child: STARTED and END; closed by execve
    struct input input;
    struct output output[2];
    uint64_t linger_at_us; // when output that grandchildren hold open is cut
    uint64_t kill_at_us;

    // For methods without a process that wait for something: called at tick_at_us.
    void (*tick)(struct channel *channel, uint64_t now_us);
    uint64_t tick_at_us;
    uint64_t deadline_us;
    uint64_t argument;

    // For methods that speak from the agent's memory; see served.h.
    const struct server *server;
    void *subject;
    bool eof_sent;
    bool more; // there is more to send than one round took
};

enum { CHANNEL_POLL_SLOTS = 4 };

struct channel *channel_new(uint32_t id); // NULL: out of memory
void channel_free(struct channel *channel);

void channel_end(struct channel *channel, uint32_t code, const struct builder *fields);
void channel_end_text(struct channel *channel, uint32_t code, const char *format, ...) __attribute__((format(printf, 3, 4)));

bool channel_data(struct channel *channel, const uint8_t *bytes, uint32_t length); // false: overran its window
void channel_eof(struct channel *channel);
void channel_taken(struct channel *channel, uint32_t amount); // so many bytes of stdin have found their reader
void channel_grant(struct channel *channel, enum stream stream, uint32_t amount);
void channel_signal(struct channel *channel, int signal);
void channel_resize(struct channel *channel, uint16_t rows, uint16_t columns);
// CLOSE, or the host is gone: stops the process and drops its data.
void channel_abandon(struct channel *channel, enum channel_host host, uint64_t now_us);

void channel_want(struct channel *channel, const struct outqueue *queue, struct pollfd slots[CHANNEL_POLL_SLOTS]);
void channel_ready(struct channel *channel, struct outqueue *queue, const struct pollfd slots[CHANNEL_POLL_SLOTS]);
void channel_notice_exit(struct channel *channel, uint64_t now_us);
uint64_t channel_next_timer(const struct channel *channel); // UINT64_MAX: none
void channel_timers(struct channel *channel, struct outqueue *queue, uint64_t now_us);
// Queues what became due. True when the channel is over and may be freed.
bool channel_settle(struct channel *channel, struct outqueue *queue);
