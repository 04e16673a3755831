#include "channel_input.h"

#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "served.h"

void channel_input_drop(struct channel *channel) {
    if (channel->input.fd >= 0)
        close(channel->input.fd);
    channel->input.fd = -1;
    free(channel->input.ring);
    channel->input.ring = NULL;
    channel->input.length = 0;
}

static void input_taken(struct input *input, uint32_t amount) { input->ungranted += amount; }

void channel_taken(struct channel *channel, uint32_t amount) { input_taken(&channel->input, amount); }

static void input_break(struct channel *channel) {
    struct input *input = &channel->input;
    input_taken(input, input->length);
    input->broken = true;
    channel_input_drop(channel);
}

// Writes directly from the frame or the ring. Returns how much the command took; a closed pipe takes everything.
static uint32_t input_write(struct channel *channel, const uint8_t *bytes, uint32_t length) {
    ssize_t written = write(channel->input.fd, bytes, length);
    if (written >= 0) {
        input_taken(&channel->input, (uint32_t)written);
        return (uint32_t)written;
    }
    if (errno == EAGAIN || errno == EINTR)
        return 0;
    input_break(channel);
    return 0;
}

// A terminal has no end of file: its EOF character (usually ^D) is what a person would type.
static void input_finish(struct channel *channel) {
    struct termios settings;
    if (channel->pty && tcgetattr(channel->input.fd, &settings) == 0 && (settings.c_lflag & ICANON)) {
        if (write(channel->input.fd, &settings.c_cc[VEOF], 1) < 0) {
            // The command is gone, or reads nothing at all.
        }
    }
    channel_input_drop(channel);
}

void channel_input_pump(struct channel *channel) {
    struct input *input = &channel->input;
    while (input->fd >= 0 && input->length) {
        uint32_t contiguous = FRAME_WINDOW - input->start;
        uint32_t size = input->length < contiguous ? input->length : contiguous;
        uint32_t taken = input_write(channel, input->ring + input->start, size);
        if (input->fd < 0 || taken == 0)
            break;
        input->start = (input->start + taken) % FRAME_WINDOW;
        input->length -= taken;
    }
    if (input->fd >= 0 && input->ended && input->length == 0)
        input_finish(channel);
}

bool channel_data(struct channel *channel, const uint8_t *bytes, uint32_t length) {
    struct input *input = &channel->input;
    if (!input->exists || input->ended || channel->host != HOST_PRESENT)
        return true;
    if (length > FRAME_WINDOW - input->outstanding)
        return false;
    input->outstanding += length;
    if (channel->server) {
        served_take(channel, bytes, length);
        return true;
    }
    if (input->fd >= 0 && input->length == 0 && length) {
        uint32_t taken = input_write(channel, bytes, length);
        bytes += taken;
        length -= taken;
    }
    if (input->fd >= 0 && length && !input->ring) {
        input->start = 0;
        input->ring = malloc(FRAME_WINDOW);
        if (!input->ring)
            input_break(channel);
    }
    if (input->fd < 0) {
        input_taken(input, length);
        return true;
    }
    while (length) {
        uint32_t end = (input->start + input->length) % FRAME_WINDOW;
        uint32_t size = FRAME_WINDOW - end < length ? FRAME_WINDOW - end : length;
        memcpy(input->ring + end, bytes, size);
        input->length += size;
        bytes += size;
        length -= size;
    }
    return true;
}

void channel_eof(struct channel *channel) {
    bool first = !channel->input.ended;
    channel->input.ended = true;
    if (channel->server && first)
        served_eof(channel);
    channel_input_pump(channel);
}
