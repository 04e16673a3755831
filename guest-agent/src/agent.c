#define _GNU_SOURCE
#include "agent.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "mux.h"
#include "sessions.h"
#include "uevents.h"

enum { SLOT_TRANSPORT, SLOT_SIGNALS, SLOT_GO, SLOT_CHANNELS };
enum { READ_TURNS = 64, STUFFED_WAIT_US = 20000, PLACE_RETRY_US = 50000, ASK_RETRY_US = 50000, FLUSH_LIMIT_US = 500000, HANGUP_LASTS_US = 50000, GO_WAIT_MS = 10000 };
enum { SYNC_LIMIT_US = 30000000 };

enum going_down { STAY_UP, FLUSH_END, SYNC_DISKS, ASK_INIT, WAIT_FOR_INIT };

struct agent {
    struct agent_state state;
    struct mux mux;
    struct transport *transport;
    int signal_fd;
    int go_fd; // see agent_options, -1: commands may run
    bool met;  // somebody has been welcomed
    enum going_down going_down;
    uint64_t hangup_at_us;  // when a host that left counts as gone; 0: it is there
    uint64_t going_next_us; // when the present step is given up or tried again
    uint64_t force_at_us;
    pid_t sync_pid;
};

// Static: 400 KiB of buffers, of which only the used pages exist, and forked children share them.
static struct agent agent;
static struct pollfd slots[SLOT_CHANNELS + MUX_TABLE * CHANNEL_POLL_SLOTS + SESSIONS_POLL_SLOTS];

static void open_method(void *context, struct channel *channel, uint16_t method, struct fields request) {
    method_open(context, channel, method, request);
}

static void add_welcome(void *context, struct builder *fields) {
    agent.met = true;
    method_welcome(context, fields);
}

static void host_gone(void) { mux_host_gone(&agent.mux, uptime_us()); }

// The kernel tells of the host's coming and going by a work queue, but of bytes by interrupt: when the host leaves and
// returns at once, its HELLO may have been answered before the leaving is seen. So it counts only if it lasts; HELLO
// itself closes what an earlier conversation left.
static void consider_hangup(uint64_t now_us) {
    struct transport *transport = agent.transport;
    if (transport->hung_up && !agent.hangup_at_us)
        agent.hangup_at_us = now_us + HANGUP_LASTS_US;
    transport->hung_up = false;
    if (!agent.hangup_at_us || now_us < agent.hangup_at_us)
        return;
    agent.hangup_at_us = 0;
    if (transport_host_is_absent(transport))
        host_gone();
}

// The stream is at its end. A port stays open for the host's return.
static void stream_ended(void) {
    struct transport *transport = agent.transport;
    transport->readable = false;
    if (transport->is_port) {
        transport->hung_up = true;
        return;
    }
    host_gone();
    close(transport->fd);
    transport->fd = -1;
}

static void read_stream(void) {
    struct transport *transport = agent.transport;
    for (int turn = 0; turn < READ_TURNS && transport->readable && transport->fd >= 0; turn++) {
        size_t room;
        uint8_t *space = parser_space(&agent.mux.parser, &room);
        if (room == 0)
            return;
        ssize_t got = read(transport->fd, space, room);
        if (got > 0) {
            parser_filled(&agent.mux.parser, (size_t)got);
        } else if (got == 0) {
            mux_dispatch(&agent.mux, uptime_us()); // what came before the end counts
            stream_ended();
        } else if (errno == EAGAIN) {
            transport->readable = false;
        } else if (errno != EINTR) {
            stream_ended();
        }
    }
}

static void flush_stream(void) {
    struct transport *transport = agent.transport;
    if (transport->fd < 0) {
        outqueue_clear(&agent.mux.queue);
        return;
    }
    if (transport->writable && outqueue_used(&agent.mux.queue) && !outqueue_flush(&agent.mux.queue, transport->fd)) {
        transport->writable = false;
        // A port that lost its host says EAGAIN; a socket says so plainly.
        if (errno != EAGAIN && errno != EINTR && !transport->is_port)
            stream_ended();
    }
}

static void take_signals(void) {
    struct signalfd_siginfo info;
    while (read(agent.signal_fd, &info, sizeof info) == sizeof info) {
    }
    mux_notice_exits(&agent.mux, uptime_us());
    sessions_notice_exits();
}

// PID 1 says which init there will be, and with that that commands may run.
static void take_go(void) {
    uint8_t mode;
    if (read(agent.go_fd, &mode, 1) == 1)
        agent.state.mode = mode;
    close(agent.go_fd);
    agent.go_fd = -1;
}

// Going down: END leaves, sessions end, disks are synced, init is asked, and after the grace it is done without init.

static void go_down_step(uint64_t now_us) {
    switch (agent.going_down) {
    case STAY_UP:
        if (!agent.state.power_requested)
            return;
        agent.force_at_us = now_us + agent.state.power_grace_us;
        agent.going_next_us = now_us + FLUSH_LIMIT_US;
        agent.going_down = FLUSH_END;
        sessions_stop_all(agent.going_next_us);
        return;
    case FLUSH_END:
        if ((outqueue_used(&agent.mux.queue) || sessions_run()) && now_us < agent.going_next_us)
            return;
        // In a child: a disk that hangs must not keep the machine up.
        agent.sync_pid = fork();
        if (agent.sync_pid == 0) {
            sync();
            _exit(0);
        }
        agent.going_next_us = now_us + SYNC_LIMIT_US;
        agent.going_down = SYNC_DISKS;
        return;
    case SYNC_DISKS:
        if (waitpid(agent.sync_pid, NULL, WNOHANG) == 0 && now_us < agent.going_next_us && now_us < agent.force_at_us)
            return;
        agent.going_next_us = now_us;
        agent.going_down = ASK_INIT;
        return;
    case ASK_INIT:
        if (now_us >= agent.force_at_us)
            power_force(agent.state.power);
        if (now_us < agent.going_next_us)
            return;
        switch (power_ask(agent.state.power, agent.state.mode == MODE_RESIDENT)) {
        case POWER_ASKED:
            agent.going_down = WAIT_FOR_INIT;
            return;
        case POWER_NOT_YET:
            agent.going_next_us = now_us + ASK_RETRY_US;
            return;
        case POWER_NOBODY:
            power_force(agent.state.power);
        }
        return;
    case WAIT_FOR_INIT:
        if (now_us >= agent.force_at_us)
            power_force(agent.state.power);
        return;
    }
}

static uint64_t going_down_timer(void) {
    switch (agent.going_down) {
    case STAY_UP:
        return agent.state.power_requested ? 0 : UINT64_MAX;
    case WAIT_FOR_INIT:
        return agent.force_at_us;
    default:
        return agent.going_next_us < agent.force_at_us ? agent.going_next_us : agent.force_at_us;
    }
}

static int poll_timeout_ms(void) {
    uint64_t now = uptime_us();
    uint64_t next = mux_next_timer(&agent.mux);
    // A timer that cannot act before the queue has room must not turn the loop into a spin.
    if (mux_is_stuffed(&agent.mux) && next < now + STUFFED_WAIT_US)
        next = now + STUFFED_WAIT_US;
    if (mux_has_output(&agent.mux))
        next = now;
    uint64_t sessions = sessions_next_timer();
    next = sessions < next ? sessions : next;
    uint64_t down = going_down_timer();
    next = down < next ? down : next;
    if (agent.hangup_at_us && agent.hangup_at_us < next)
        next = agent.hangup_at_us;
    if (agent.transport->knock_at_us < next)
        next = agent.transport->knock_at_us;
    bool can_read = agent.transport->readable && !mux_is_stuffed(&agent.mux);
    bool can_write = agent.transport->writable && outqueue_used(&agent.mux.queue);
    if (agent.transport->fd >= 0 && (can_read || can_write))
        return 0;
    if (next == UINT64_MAX)
        return -1;
    return next <= now ? 0 : next - now > 60000000 ? 60000 : (int)((next - now + 999) / 1000);
}

// A channel that ends may change a session (its writer is gone), which others that were settled before it watch.
static void settle_channels(void) {
    uint64_t changes;
    do {
        changes = session_changes;
        mux_settle(&agent.mux);
    } while (changes != session_changes);
}

static void loop_turn(void) {
    int count = agent.mux.count;
    slots[SLOT_TRANSPORT] = (struct pollfd){.fd = agent.transport->epoll_fd, .events = POLLIN};
    slots[SLOT_SIGNALS] = (struct pollfd){.fd = agent.signal_fd, .events = POLLIN};
    slots[SLOT_GO] = (struct pollfd){.fd = agent.go_fd, .events = POLLIN};
    for (int i = 0; i < count; i++)
        channel_want(agent.mux.channels[i], &agent.mux.queue, &slots[SLOT_CHANNELS + i * CHANNEL_POLL_SLOTS]);
    struct pollfd *session_slots = &slots[SLOT_CHANNELS + count * CHANNEL_POLL_SLOTS];
    int sessions = sessions_want(session_slots);
    if (poll(slots, (nfds_t)(session_slots - slots + sessions * SESSION_POLL_SLOTS), poll_timeout_ms()) < 0)
        return;
    // Before anything is read: commands whose output is complete were dead by then, or are seen dead next time.
    if (slots[SLOT_SIGNALS].revents)
        take_signals();
    if (slots[SLOT_GO].revents)
        take_go();
    for (int i = 0; i < count; i++)
        channel_ready(agent.mux.channels[i], &agent.mux.queue, &slots[SLOT_CHANNELS + i * CHANNEL_POLL_SLOTS]);
    sessions_ready(session_slots, sessions);
    if (slots[SLOT_TRANSPORT].revents && transport_take_events(agent.transport))
        host_gone();
    transport_knock(agent.transport, uptime_us());
    if (!mux_is_stuffed(&agent.mux))
        read_stream();
    consider_hangup(uptime_us());
    mux_dispatch(&agent.mux, uptime_us());
    mux_timers(&agent.mux, uptime_us());
    sessions_step(uptime_us());
    settle_channels();
    flush_stream();
    go_down_step(uptime_us());
}

static void wait_for_place(void) {
    int uevents = uevents_open();
    while (!transport_try(agent.transport))
        uevents_wait(uevents, PLACE_RETRY_US / 1000);
    close(uevents);
}

static bool test_is_over(void) {
    return agent.state.mode == MODE_TEST && agent.transport->fd < 0 && agent.mux.count == 0;
}

// WELCOME travels while PID 1 brings the network up. What comes after it waits in the stream, so that the first command finds it there.
static void wait_for_go(void) {
    while (agent.go_fd >= 0 && !agent.met)
        loop_turn();
    struct pollfd go = {.fd = agent.go_fd, .events = POLLIN};
    if (agent.go_fd < 0)
        return;
    poll(&go, 1, GO_WAIT_MS);
    take_go();
}

noreturn void agent_run(const struct agent_options *options) {
    sigset_t children;
    sigemptyset(&children);
    sigaddset(&children, SIGCHLD);
    sigprocmask(SIG_SETMASK, &children, NULL);
    signal(SIGPIPE, SIG_IGN);
    if (options->mode != MODE_TEST) {
        // What a login would give; PID 1 has 1024 and 4096.
        setrlimit(RLIMIT_NOFILE, &(struct rlimit){1024, 524288});
    }
    agent.state = (struct agent_state){.mode = options->mode, .stages = options->stages};
    agent.transport = options->transport;
    agent.go_fd = options->go_fd;
    agent.signal_fd = signalfd(-1, &children, SFD_CLOEXEC | SFD_NONBLOCK);
    mux_init(&agent.mux);
    agent.mux.context = &agent.state;
    agent.mux.open = open_method;
    agent.mux.welcome = add_welcome;
    if (!transport_is_open(agent.transport))
        wait_for_place();
    stage_reached(options->stages, "agent");
    agent.state.ready_us = uptime_us();
    // A HELLO that is waiting is answered before PID 1 goes on and competes for the processor.
    transport_take_events(agent.transport);
    if (agent.transport->fd >= 0)
        loop_turn();
    if (options->ready_fd >= 0)
        close(options->ready_fd);
    wait_for_go();
    // PID 1 alone ends a handed-over guest. A resident PID 1 does it by SIGTERM, and must not wait for us.
    if (agent.state.mode == MODE_HANDOVER)
        signal(SIGTERM, SIG_IGN);
    while (!test_is_over())
        loop_turn();
    sessions_kill_all();
    _exit(0);
}
