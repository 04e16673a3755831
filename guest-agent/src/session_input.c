#include "session_input.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

void session_input_close(struct session_input *input) {
    if (input->fd >= 0)
        close(input->fd);
    free(input->ring);
    *input = (struct session_input){.fd = -1};
}

static uint32_t give_up(struct session_input *input) {
    uint32_t lost = input->length - input->left_behind;
    session_input_close(input);
    return lost;
}

// How much was taken; UINT32_MAX: nobody reads any more.
static uint32_t write_some(const struct session_input *input, const uint8_t *bytes, uint32_t length) {
    ssize_t written = write(input->fd, bytes, length);
    if (written >= 0)
        return (uint32_t)written;
    return errno == EAGAIN || errno == EINTR ? 0 : UINT32_MAX;
}

static bool keep(struct session_input *input, const uint8_t *bytes, uint32_t length) {
    if (!input->ring)
        input->ring = malloc(SESSION_INPUT_MAX);
    if (!input->ring || length > SESSION_INPUT_MAX - input->length)
        return false;
    while (length) {
        uint32_t end = (input->start + input->length) % SESSION_INPUT_MAX;
        uint32_t size = SESSION_INPUT_MAX - end < length ? SESSION_INPUT_MAX - end : length;
        memcpy(input->ring + end, bytes, size);
        input->length += size;
        bytes += size;
        length -= size;
    }
    return true;
}

uint32_t session_input_give(struct session_input *input, const uint8_t *bytes, uint32_t length) {
    uint32_t taken = 0;
    if (input->fd < 0 || input->closes)
        return length;
    if (input->length == 0 && length) {
        taken = write_some(input, bytes, length);
        if (taken == UINT32_MAX) {
            session_input_close(input);
            return length;
        }
    }
    if (taken < length && !keep(input, bytes + taken, length - taken))
        return length + give_up(input);
    return taken;
}

uint32_t session_input_pump(struct session_input *input) {
    uint32_t all = 0;
    while (input->fd >= 0 && input->length) {
        uint32_t contiguous = SESSION_INPUT_MAX - input->start;
        uint32_t size = input->length < contiguous ? input->length : contiguous;
        uint32_t taken = write_some(input, input->ring + input->start, size);
        if (taken == UINT32_MAX)
            return all + give_up(input);
        if (taken == 0)
            return all;
        input->start = (input->start + taken) % SESSION_INPUT_MAX;
        input->length -= taken;
        uint32_t former = taken < input->left_behind ? taken : input->left_behind;
        input->left_behind -= former;
        all += taken - former;
    }
    if (input->closes)
        session_input_close(input);
    free(input->ring);
    input->ring = NULL;
    input->start = 0;
    return all;
}

void session_input_end(struct session_input *input, bool terminal) {
    struct termios settings;
    if (input->fd < 0)
        return;
    if (!terminal) {
        input->closes = true;
        if (input->length == 0)
            session_input_close(input);
    } else if (tcgetattr(input->fd, &settings) == 0 && (settings.c_lflag & ICANON)) {
        session_input_give(input, (const uint8_t *)&settings.c_cc[VEOF], 1);
    }
}

void session_input_leave(struct session_input *input) { input->left_behind = input->length; }

bool session_input_has_room(const struct session_input *input) { return input->length <= FRAME_WINDOW; }
