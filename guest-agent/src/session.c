#define _GNU_SOURCE
#include "session.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { READ_SIZE = 65536, LINGER_US = 1000000, LOOK_US = 20000 };

uint64_t session_changes;

static void close_fd(int *fd) {
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static uint64_t wall_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

void session_changed(struct session *session) { session->change = ++session_changes; }

bool session_is_over(const struct session *session) { return session->ended_ns != 0; }

static bool keep_tags(struct session *session, struct fields request) {
    uint8_t bytes[2 * SESSION_TAGS_MAX];
    struct builder built = builder_in(bytes, sizeof bytes);
    struct field field;
    size_t length = 0;
    while (fields_next(&request, &field)) {
        if (field.tag != 10)
            continue;
        length += field.length;
        const uint8_t *equals = memchr(field.bytes, '=', field.length);
        if (!equals || equals == field.bytes || length > SESSION_TAGS_MAX)
            return false;
        build_bytes(&built, 14, field.bytes, field.length);
    }
    session->tags = malloc(built.length + 1);
    if (!session->tags || built.overflowed)
        return false;
    memcpy(session->tags, bytes, built.length);
    session->tags_length = built.length;
    return true;
}

static void adopt(struct session *session, struct child_pipes *pipes) {
    session->report_fd = pipes->report_parent;
    session->input.fd = pipes->parent[0];
    session->output[0] = pipes->parent[1];
    session->output[1] = pipes->parent[2];
    pipes->report_parent = -1;
    for (int i = 0; i < 3; i++)
        pipes->parent[i] = -1;
    child_pipes_close(pipes);
}

struct session *session_start(const struct session_request *request, struct failure *failure) {
    struct child_pipes pipes;
    struct session *session = calloc(1, sizeof *session);
    if (!session || !scrollback_open(&session->log, request->scrollback)) {
        free(session);
        failure_set(failure, ENOMEM, "a session's scroll-back: %s", strerror(ENOMEM));
        return NULL;
    }
    session->input.fd = session->report_fd = session->output[0] = session->output[1] = -1;
    field_text(&request->id, session->id, sizeof session->id);
    if (!keep_tags(session, request->command.request)) {
        failure_set(failure, FAILURE_BAD_REQUEST, "a tag is not K=V, or all are more than %d bytes", SESSION_TAGS_MAX);
        session_free(session);
        return NULL;
    }
    session->pid = command_start(&request->command, &pipes, failure);
    if (session->pid < 0) {
        session->pid = 0;
        session_free(session);
        return NULL;
    }
    session->pty = request->command.flags & COMMAND_PTY;
    session->rows = session->pty ? (uint16_t)request->command.rows : 0;
    session->columns = session->pty ? (uint16_t)request->command.columns : 0;
    adopt(session, &pipes);
    return session;
}

static void reap(struct session *session) {
    if (session->pid && !session->reaped)
        waitpid(session->pid, NULL, WNOHANG);
    session->reaped = true;
}

void session_free(struct session *session) {
    close_fd(&session->report_fd);
    session_input_close(&session->input);
    for (int i = 0; i < 2; i++)
        close_fd(&session->output[i]);
    scrollback_close(&session->log);
    reap(session);
    free(session->tags);
    free(session);
}

struct builder session_describe(const struct session *session, uint8_t *bytes) {
    struct builder built = builder_in(bytes, SESSION_DESCRIPTION_MAX);
    build_text(&built, 1, session->id);
    build_number(&built, 2, session->state);
    build_number(&built, 3, (uint64_t)session->pid);
    if (session_is_over(session))
        build_number(&built, session->exit_code == CLD_EXITED ? 4 : 5, (uint64_t)session->exit_status);
    build_number(&built, 6, session->log.begin);
    build_number(&built, 7, session->log.end);
    build_number(&built, 8, session->started_ns);
    if (session_is_over(session))
        build_number(&built, 9, session->ended_ns);
    uint64_t flags = session->pty ? SESSION_PTY : 0;
    flags |= session->writer ? SESSION_HAS_WRITER : 0;
    flags |= session_takes_input(session) ? SESSION_TAKES_INPUT : 0;
    build_number(&built, 10, flags);
    build_number(&built, 11, session->rows);
    build_number(&built, 12, session->columns);
    build_number(&built, 13, session->readers);
    build_raw(&built, session->tags, session->tags_length);
    return built;
}

void session_build(const struct session *session, struct builder *fields) {
    uint8_t bytes[SESSION_DESCRIPTION_MAX];
    struct builder built = session_describe(session, bytes);
    build_bytes(fields, 1, bytes, built.length);
}

// Output

void session_want(const struct session *session, struct pollfd slots[SESSION_POLL_SLOTS]) {
    const struct session_input *input = &session->input;
    slots[0] = (struct pollfd){.fd = session->report_fd, .events = POLLIN};
    slots[1] = (struct pollfd){.fd = input->length ? input->fd : -1, .events = POLLOUT};
    for (int i = 0; i < 2; i++)
        slots[2 + i] = (struct pollfd){.fd = session->output[i], .events = POLLIN};
}

static void note_dropped(void *context, const uint8_t *bytes, size_t length) { modes_feed(context, bytes, length); }

// False: that is all there is now.
static bool read_output(struct session *session, int i, size_t *budget) {
    static uint8_t bytes[READ_SIZE];
    size_t size = *budget < sizeof bytes ? *budget : sizeof bytes;
    ssize_t got = read(session->output[i], bytes, size);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (got <= 0) { // a PTY whose last user is gone says EIO
        close_fd(&session->output[i]);
        return false;
    }
    scrollback_append(&session->log, (uint8_t)(STREAM_STDOUT + i), bytes, (size_t)got, session->pty ? note_dropped : NULL,
                      &session->modes);
    *budget -= (size_t)got;
    return true;
}

static void read_report(struct session *session) {
    uint8_t message[1 + FRAME_PAYLOAD_MAX];
    ssize_t size = recv(session->report_fd, message, sizeof message, 0);
    if (size < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    close_fd(&session->report_fd);
    if (size <= 0 && session->state == SESSION_STARTING) { // closed by a successful execve
        session->state = SESSION_RUNNING;
        session->started_ns = wall_ns();
        session_changed(session);
    } else if (size >= 5 && message[0] == FRAME_END) {
        struct fields fields = fields_of(message + 5, (size_t)size - 5);
        struct field field;
        session->state = SESSION_UNSTARTED;
        session->failure = (struct failure){.code = load_u32(message + 1)};
        if (fields_next(&fields, &field))
            field_text(&field, session->failure.text, sizeof session->failure.text);
    }
}

// Input

bool session_takes_input(const struct session *session) { return session->input.fd >= 0 && !session->input.closes; }

static void note_input(struct session *session, bool took) {
    if (took != session_takes_input(session))
        session_changed(session);
}

void session_set_writer(struct session *session, const void *writer) {
    session_input_leave(&session->input);
    session->taken = 0;
    session->writer = writer;
    session_changed(session);
}

void session_write(struct session *session, const uint8_t *bytes, uint32_t length) {
    bool took = session_takes_input(session);
    session->taken += session_input_give(&session->input, bytes, length);
    note_input(session, took);
}

void session_end_input(struct session *session) {
    bool took = session_takes_input(session);
    session_input_end(&session->input, session->pty);
    note_input(session, took);
}

static void pump_input(struct session *session) {
    bool took = session_takes_input(session);
    session->taken += session_input_pump(&session->input);
    note_input(session, took);
}

void session_ready(struct session *session, const struct pollfd slots[SESSION_POLL_SLOTS], size_t *budget) {
    if (slots[0].revents && session->report_fd >= 0)
        read_report(session);
    if (slots[1].revents)
        pump_input(session);
    for (int i = 0; i < 2; i++)
        if (slots[2 + i].revents && session->output[i] >= 0 && *budget)
            read_output(session, i, budget);
}

// The end

void session_notice_exit(struct session *session) {
    siginfo_t info = {0};
    if (session->exited || !session->pid)
        return;
    if (waitid(P_PID, (id_t)session->pid, &info, WEXITED | WNOHANG | WNOWAIT) < 0 || info.si_pid == 0)
        return;
    session->exited = true;
    session->exit_code = info.si_code;
    session->exit_status = info.si_status;
}

// Whoever of a stopped session's group outlives its leader keeps the group's number. It is asked every LOOK_US, and the
// kernel gives numbers out in turn: none comes round in that time.
static bool group_is_left(struct session *session, uint64_t now_us) {
    reap(session);
    if (now_us >= session->look_at_us) {
        if (kill(-session->pid, 0) < 0) {
            session->kill_at_us = 0;
            return false;
        }
        session->look_at_us = now_us + LOOK_US;
    }
    return true;
}

// Somebody still holds the pipes: what is in them now, and no more.
static void cut_outputs(struct session *session) {
    for (int i = 0; i < 2; i++) {
        int waiting = 0;
        if (session->output[i] < 0)
            continue;
        ioctl(session->output[i], FIONREAD, &waiting);
        for (size_t left = (size_t)waiting; left && read_output(session, i, &left);) {
        }
        close_fd(&session->output[i]);
    }
}

static void finish(struct session *session) {
    cut_outputs(session);
    session_input_close(&session->input);
    reap(session);
    session->state = session->state == SESSION_STOPPING ? SESSION_STOPPED : SESSION_EXITED;
    session->ended_ns = wall_ns();
    session->linger_at_us = 0;
    session_changed(session);
}

bool session_step(struct session *session, uint64_t now_us) {
    if (session->ended_ns || session->report_fd >= 0 || session->state == SESSION_UNSTARTED)
        return false;
    if (session->kill_at_us && now_us >= session->kill_at_us) {
        kill(-session->pid, SIGKILL);
        session->kill_at_us = 0;
    }
    if (!session->exited || (session->kill_at_us && group_is_left(session, now_us)))
        return false;
    if (!session->linger_at_us)
        session->linger_at_us = now_us + LINGER_US;
    if ((session->output[0] >= 0 || session->output[1] >= 0) && now_us < session->linger_at_us)
        return false;
    finish(session);
    return true;
}

uint64_t session_next_timer(const struct session *session) {
    uint64_t next = UINT64_MAX;
    const uint64_t timers[] = {session->kill_at_us, session->linger_at_us,
                               session->exited && session->kill_at_us ? session->look_at_us : 0};
    for (size_t i = 0; i < sizeof timers / sizeof *timers; i++)
        if (timers[i] && timers[i] < next)
            next = timers[i];
    return session->ended_ns ? UINT64_MAX : next;
}

// What is done to it

void session_stop(struct session *session, uint64_t kill_at_us) {
    if (session_is_over(session))
        return;
    if (!session->kill_at_us || kill_at_us < session->kill_at_us)
        session->kill_at_us = kill_at_us;
    if (session->state != SESSION_RUNNING)
        return;
    session->state = SESSION_STOPPING;
    // A stopped process takes notice once it goes on; an interactive shell ends on SIGHUP only.
    const int signals[] = {SIGTERM, SIGCONT, SIGHUP};
    for (int i = 0; i < (session->pty ? 3 : 2) && !session->reaped; i++)
        kill(-session->pid, signals[i]);
    session_changed(session);
}

int session_signal(struct session *session, int signal) {
    if (session_is_over(session) || session->reaped)
        return ESRCH;
    return kill(-session->pid, signal) < 0 ? errno : 0;
}

int session_resize(struct session *session, uint16_t rows, uint16_t columns) {
    struct winsize size = {.ws_row = rows, .ws_col = columns};
    if (session_is_over(session))
        return ESRCH;
    if (!session->pty)
        return ENOTTY;
    if (session->output[0] >= 0 && ioctl(session->output[0], TIOCSWINSZ, &size) < 0)
        return errno;
    session->rows = rows;
    session->columns = columns;
    session_changed(session);
    return 0;
}
