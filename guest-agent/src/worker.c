#define _GNU_SOURCE
#include "worker.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { REPORT_FD = 3 };

int child_pipes_open(struct child_pipes *pipes, int streams) {
    int pair[2];
    *pipes = (struct child_pipes){{-1, -1, -1}, {-1, -1, -1}, -1, -1};
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return -1;
    pipes->report_parent = pair[0];
    pipes->report_child = pair[1];
    fcntl(pair[0], F_SETFL, O_NONBLOCK);
    for (int i = 0; i < 3; i++) {
        if (!(streams & 1 << i))
            continue;
        if (pipe2(pair, O_CLOEXEC) < 0) {
            int error = errno;
            child_pipes_close(pipes);
            errno = error;
            return -1;
        }
        pipes->parent[i] = pair[i == 0];
        pipes->child[i] = pair[i != 0];
        // Only the agent's end: O_NONBLOCK belongs to the open file, and commands expect blocking pipes.
        fcntl(pipes->parent[i], F_SETFL, O_NONBLOCK);
    }
    return 0;
}

static void close_fd(int *fd) {
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

void child_pipes_close(struct child_pipes *pipes) {
    for (int i = 0; i < 3; i++) {
        close_fd(&pipes->parent[i]);
        close_fd(&pipes->child[i]);
    }
    close_fd(&pipes->report_parent);
    close_fd(&pipes->report_child);
}

void child_pipes_adopt(struct child_pipes *pipes, struct channel *channel) {
    channel->report_fd = pipes->report_parent;
    channel->input.fd = pipes->parent[0];
    channel->input.exists = pipes->parent[0] >= 0;
    channel->output[0].fd = pipes->parent[1];
    channel->output[1].fd = pipes->parent[2];
    pipes->report_parent = -1;
    for (int i = 0; i < 3; i++)
        pipes->parent[i] = -1;
    child_pipes_close(pipes);
}

static void close_from(int first) {
#ifdef SYS_close_range
    if (syscall(SYS_close_range, first, ~0u, 0) == 0)
        return;
#endif
    for (int fd = first; fd < 4096; fd++) // before Linux 5.9
        close(fd);
}

void child_pipes_enter(struct child_pipes *pipes) {
    // First out of the way of 0–3, then into place: an end may sit on another's number.
    int ends[4] = {pipes->child[0], pipes->child[1], pipes->child[2], pipes->report_child};
    for (int i = 0; i < 4; i++)
        ends[i] = ends[i] < 0 ? open("/dev/null", i == 0 ? O_RDONLY : O_WRONLY) : fcntl(ends[i], F_DUPFD, 16);
    for (int i = 0; i < 4; i++)
        dup2(ends[i], i);
    close_from(4);
    fcntl(REPORT_FD, F_SETFD, FD_CLOEXEC);

    struct sigaction standard = {.sa_handler = SIG_DFL};
    for (int signal = 1; signal < 65; signal++)
        sigaction(signal, &standard, NULL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

void worker_start(struct channel *channel, worker_function *function, struct fields request, int streams) {
    struct child_pipes pipes;
    if (child_pipes_open(&pipes, streams) < 0) {
        channel_end_text(channel, (uint32_t)errno, "pipe: %s", strerror(errno));
        return;
    }
    pid_t agent = getpid();
    pid_t pid = fork();
    if (pid < 0) {
        channel_end_text(channel, (uint32_t)errno, "fork: %s", strerror(errno));
        child_pipes_close(&pipes);
        return;
    }
    if (pid == 0) {
        child_pipes_enter(&pipes);
        // A worker must not take the agent's death for the end of its input.
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        if (getppid() != agent)
            _exit(1);
        function(request);
        _exit(0);
    }
    channel->pid = pid;
    child_pipes_adopt(&pipes, channel);
}

bool worker_is_abandoned(void) {
    struct pollfd slot = {.fd = REPORT_FD};
    return poll(&slot, 1, 0) == 1 && (slot.revents & (POLLHUP | POLLERR));
}

bool write_all(int fd, const void *bytes, size_t length) {
    const uint8_t *at = bytes;
    while (length) {
        ssize_t written = write(fd, at, length);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return false;
        at += written;
        length -= (size_t)written;
    }
    return true;
}

static void report(uint8_t type, const uint32_t *code, const struct builder *fields) {
    uint8_t message[1 + FRAME_PAYLOAD_MAX];
    size_t length = 1;
    message[0] = type;
    if (code) {
        store_u32(message + 1, *code);
        length += 4;
    }
    if (fields && fields->length <= sizeof message - length) {
        memcpy(message + length, fields->buffer, fields->length);
        length += fields->length;
    }
    if (send(REPORT_FD, message, length, MSG_NOSIGNAL) < 0)
        _exit(1); // the agent is gone, or has abandoned the channel
}

void report_started(const struct builder *fields) { report(FRAME_STARTED, NULL, fields); }

noreturn void report_done(const struct builder *fields) {
    uint32_t success = 0;
    report(FRAME_END, &success, fields);
    _exit(0);
}

noreturn void report_failure(const struct failure *failure) {
    uint8_t bytes[FIELD_HEADER + sizeof failure->text];
    struct builder fields = builder_in(bytes, sizeof bytes);
    build_text(&fields, 1, failure->text);
    report(FRAME_END, &failure->code, &fields);
    _exit(1);
}
