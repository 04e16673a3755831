#include "channel.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "channel_input.h"
#include "served.h"

enum { GRANT_STEP = FRAME_WINDOW / 4, LINGER_US = 1000000, HANGUP_GRACE_US = 1000000, WORKER_GRACE_US = 2000000 };

static void close_fd(int *fd) {
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

struct channel *channel_new(uint32_t id) {
    struct channel *channel = calloc(1, sizeof *channel);
    if (!channel)
        return NULL;
    channel->id = id;
    channel->report_fd = channel->input.fd = -1;
    for (int i = 0; i < 2; i++)
        channel->output[i] = (struct output){.fd = -1, .window = FRAME_WINDOW};
    return channel;
}

static void drop_streams(struct channel *channel) {
    close_fd(&channel->report_fd);
    channel_input_drop(channel);
    for (int i = 0; i < 2; i++)
        close_fd(&channel->output[i].fd);
}

void channel_free(struct channel *channel) {
    served_leave(channel);
    drop_streams(channel);
    free(channel->end_fields);
    // Its leader may be dead of SIGHUP while others of its group ignored it.
    if (channel->command && channel->pid && channel->host != HOST_PRESENT)
        kill(-channel->pid, SIGKILL);
    // Seen dead by WNOWAIT earlier: until now the zombie kept its process group's number from being given to another.
    if (channel->pid)
        waitpid(channel->pid, NULL, WNOHANG);
    free(channel);
}

void channel_end(struct channel *channel, uint32_t code, const struct builder *fields) {
    if (channel->ended)
        return;
    channel->ended = true;
    channel->end_code = code;
    if (!fields || fields->length == 0 || fields->length > FRAME_PAYLOAD_MAX - 4)
        return;
    channel->end_fields = malloc(fields->length);
    if (!channel->end_fields)
        return; // the code alone still tells
    memcpy(channel->end_fields, fields->buffer, fields->length);
    channel->end_length = (uint32_t)fields->length;
}

void channel_end_text(struct channel *channel, uint32_t code, const char *format, ...) {
    struct failure failure;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(failure.text, sizeof failure.text, format, arguments);
    va_end(arguments);
    uint8_t bytes[FIELD_HEADER + sizeof failure.text];
    struct builder fields = builder_in(bytes, sizeof bytes);
    build_text(&fields, 1, failure.text);
    channel_end(channel, code, &fields);
}

void channel_grant(struct channel *channel, enum stream stream, uint32_t amount) {
    if (stream == STREAM_STDIN)
        return;
    uint32_t *window = &channel->output[stream - STREAM_STDOUT].window;
    *window = amount > INT32_MAX - *window ? INT32_MAX : *window + amount;
}

// The process

void channel_signal(struct channel *channel, int signal) {
    if (!channel->command || !channel->pid || channel->report_fd >= 0)
        return;
    kill(-channel->pid, signal);
}

void channel_resize(struct channel *channel, uint16_t rows, uint16_t columns) {
    struct winsize size = {.ws_row = rows, .ws_col = columns};
    if (channel->pty && channel->output[0].fd >= 0)
        ioctl(channel->output[0].fd, TIOCSWINSZ, &size);
}

static void stop_process(struct channel *channel, uint64_t now_us) {
    if (!channel->pid)
        return;
    if (!channel->command) {
        // A worker removes its half-written file on SIGTERM.
        if (!channel->exited)
            kill(channel->pid, SIGTERM);
        channel->kill_at_us = now_us + WORKER_GRACE_US;
    } else if (channel->pty) {
        kill(-channel->pid, SIGHUP);
        channel->kill_at_us = now_us + HANGUP_GRACE_US;
    } else {
        kill(-channel->pid, SIGKILL);
    }
    // Between fork and setsid the group does not exist yet.
    if (channel->command && !channel->exited && !channel->started)
        kill(channel->pid, SIGKILL);
}

void channel_abandon(struct channel *channel, enum channel_host host, uint64_t now_us) {
    bool first = channel->host == HOST_PRESENT;
    channel->host = host;
    if (!first)
        return;
    channel_end(channel, ECANCELED, NULL);
    channel->tick = NULL;
    channel->linger_at_us = 0;
    served_leave(channel);
    // In this order: a worker must not take the end of its input for the end of the file.
    stop_process(channel, now_us);
    drop_streams(channel);
}

void channel_notice_exit(struct channel *channel, uint64_t now_us) {
    siginfo_t info = {0};
    if (!channel->pid || channel->exited)
        return;
    if (waitid(P_PID, (id_t)channel->pid, &info, WEXITED | WNOHANG | WNOWAIT) < 0 || info.si_pid == 0)
        return;
    channel->exited = true;
    channel->exit_code = info.si_code;
    channel->exit_status = info.si_status;
    if (channel->host == HOST_PRESENT)
        channel->linger_at_us = now_us + LINGER_US;
}

uint64_t channel_next_timer(const struct channel *channel) {
    uint64_t next = UINT64_MAX;
    const uint64_t timers[] = {channel->linger_at_us, channel->kill_at_us, channel->tick ? channel->tick_at_us : 0};
    for (size_t i = 0; i < sizeof timers / sizeof *timers; i++)
        if (timers[i] && timers[i] < next)
            next = timers[i];
    return next;
}

static void end_output(struct channel *channel, struct outqueue *queue, int i) {
    close_fd(&channel->output[i].fd);
    if (channel->host == HOST_PRESENT && channel->started)
        outqueue_put(queue, FRAME_EOF, (enum stream)(STREAM_STDOUT + i), channel->id, NULL, 0);
}

// The command is gone for a second and somebody still holds its pipes: deliver what is in them now, and no more.
static void cut_outputs(struct channel *channel, struct outqueue *queue) {
    for (int i = 0; i < 2; i++) {
        struct output *output = &channel->output[i];
        int waiting = 0;
        if (output->fd < 0)
            continue;
        ioctl(output->fd, FIONREAD, &waiting);
        output->limited = true;
        output->left = (uint32_t)waiting;
        if (waiting == 0)
            end_output(channel, queue, i);
    }
}

void channel_timers(struct channel *channel, struct outqueue *queue, uint64_t now_us) {
    if (channel->linger_at_us && now_us >= channel->linger_at_us && outqueue_has_room(queue, 2)) {
        channel->linger_at_us = 0;
        cut_outputs(channel, queue);
    }
    if (channel->kill_at_us && now_us >= channel->kill_at_us) {
        channel->kill_at_us = 0;
        if (channel->command)
            kill(-channel->pid, SIGKILL);
        else if (!channel->exited)
            kill(channel->pid, SIGKILL);
    }
    if (channel->tick && now_us >= channel->tick_at_us)
        channel->tick(channel, now_us);
}

// Reading and writing its descriptors

static short output_events(const struct channel *channel, const struct outqueue *queue, int i) {
    const struct output *output = &channel->output[i];
    return output->fd >= 0 && output->window && channel->started && outqueue_takes_data(queue) ? POLLIN : 0;
}

void channel_want(struct channel *channel, const struct outqueue *queue, struct pollfd slots[CHANNEL_POLL_SLOTS]) {
    bool input_waits = channel->input.fd >= 0 && channel->input.length;
    slots[0] = (struct pollfd){.fd = outqueue_has_room(queue, 2) ? channel->report_fd : -1, .events = POLLIN};
    slots[1] = (struct pollfd){.fd = input_waits ? channel->input.fd : -1, .events = POLLOUT};
    for (int i = 0; i < 2; i++) {
        // A slot without events is left out altogether: poll(2) would report POLLHUP for it again and again.
        short events = output_events(channel, queue, i);
        slots[2 + i] = (struct pollfd){.fd = events ? channel->output[i].fd : -1, .events = events};
    }
}

static void read_report(struct channel *channel, struct outqueue *queue) {
    uint8_t message[1 + FRAME_PAYLOAD_MAX];
    while (channel->report_fd >= 0 && outqueue_has_room(queue, 2)) {
        ssize_t size = recv(channel->report_fd, message, sizeof message, 0);
        if (size < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (size <= 0) {
            close_fd(&channel->report_fd);
            if (channel->command && !channel->ended) { // closed by a successful execve
                uint8_t bytes[32];
                struct builder fields = builder_in(bytes, sizeof bytes);
                build_number(&fields, 1, (uint64_t)channel->pid);
                channel->started = true;
                outqueue_put(queue, FRAME_STARTED, STREAM_STDIN, channel->id, bytes, (uint32_t)fields.length);
            }
        } else if (message[0] == FRAME_STARTED) {
            channel->started = true;
            outqueue_put(queue, FRAME_STARTED, STREAM_STDIN, channel->id, message + 1, (uint32_t)size - 1);
        } else if (message[0] == FRAME_END && size >= 5) {
            struct builder fields = {.buffer = message + 5, .length = (size_t)size - 5};
            channel_end(channel, load_u32(message + 1), &fields);
        }
    }
}

static void read_output(struct channel *channel, struct outqueue *queue, int i) {
    struct output *output = &channel->output[i];
    // A few frames a turn, so that one busy channel does not starve the others.
    for (int turn = 0; turn < 4 && output_events(channel, queue, i); turn++) {
        uint32_t size = output->window < FRAME_PAYLOAD_MAX ? output->window : FRAME_PAYLOAD_MAX;
        if (output->limited && output->left < size)
            size = output->left;
        ssize_t got = size ? read(output->fd, outqueue_reserve(queue) + FRAME_HEADER, size) : 0;
        if (got < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (got <= 0) { // a PTY whose last user is gone says EIO
            end_output(channel, queue, i);
            return;
        }
        outqueue_commit(queue, FRAME_DATA, (enum stream)(STREAM_STDOUT + i), channel->id, (uint32_t)got);
        output->window -= (uint32_t)got;
        output->left -= output->limited ? (uint32_t)got : 0;
    }
}

void channel_ready(struct channel *channel, struct outqueue *queue, const struct pollfd slots[CHANNEL_POLL_SLOTS]) {
    if (slots[0].revents)
        read_report(channel, queue);
    if (slots[1].revents)
        channel_input_pump(channel);
    for (int i = 0; i < 2; i++)
        if (slots[2 + i].revents)
            read_output(channel, queue, i);
}

static void end_with_exit_status(struct channel *channel) {
    uint8_t bytes[32];
    struct builder fields = builder_in(bytes, sizeof bytes);
    build_number(&fields, channel->exit_code == CLD_EXITED ? 1 : 2, (uint64_t)channel->exit_status);
    if (channel->command)
        channel_end(channel, 0, &fields);
    else
        channel_end_text(channel, EIO, "the agent's worker ended without a result");
}

bool channel_settle(struct channel *channel, struct outqueue *queue) {
    struct input *input = &channel->input;
    bool present = channel->host == HOST_PRESENT;
    if (present && channel->server)
        served_step(channel, queue);
    if (present && !input->ended && input->ungranted >= GRANT_STEP && outqueue_has_room(queue, 1)) {
        uint8_t amount[4];
        store_u32(amount, input->ungranted);
        outqueue_put(queue, FRAME_GRANT, STREAM_STDIN, channel->id, amount, sizeof amount);
        input->outstanding -= input->ungranted;
        input->ungranted = 0;
    }
    if (channel->pid) {
        if (!channel->exited || channel->report_fd >= 0)
            return false;
        if (present && channel->started && (channel->output[0].fd >= 0 || channel->output[1].fd >= 0))
            return false;
        end_with_exit_status(channel);
    }
    if (channel->host == HOST_GONE)
        return !channel->pid || channel->exited;
    if (!channel->ended || !outqueue_has_room(queue, 1) || (present && served_owes_eof(channel)))
        return false;
    outqueue_put_end(queue, channel->id, channel->end_code, channel->end_fields, channel->end_length);
    return true;
}
