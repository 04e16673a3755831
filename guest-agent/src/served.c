#include "served.h"

enum { ROUND_FRAMES = 4 };

void served_begin(struct channel *channel, const struct server *server, void *subject) {
    channel->server = server;
    channel->subject = subject;
    channel->input.exists = server->take;
}

static void step(struct channel *channel) {
    if (channel->server->step && !channel->ended)
        channel->server->step(channel);
}

// A few frames a turn, so that one busy channel does not starve the others.
static void send_output(struct channel *channel, struct outqueue *queue) {
    uint32_t *window = &channel->output[0].window;
    channel->more = false;
    for (int turn = 0; !channel->ended && *window; turn++) {
        if (turn == ROUND_FRAMES || !outqueue_takes_data(queue)) {
            channel->more = true;
            return;
        }
        uint32_t room = *window < FRAME_PAYLOAD_MAX ? *window : FRAME_PAYLOAD_MAX;
        size_t size = channel->server->fill(channel, outqueue_reserve(queue) + FRAME_HEADER, room);
        if (size == 0)
            return;
        outqueue_commit(queue, FRAME_DATA, STREAM_STDOUT, channel->id, (uint32_t)size);
        *window -= (uint32_t)size;
    }
}

void served_step(struct channel *channel, struct outqueue *queue) {
    const struct server *server = channel->server;
    step(channel);
    if (server->announce && !channel->started && !channel->ended) {
        uint8_t bytes[FRAME_PAYLOAD_MAX];
        struct builder fields = builder_in(bytes, sizeof bytes);
        if (!outqueue_has_room(queue, 1))
            return;
        server->announce(channel, &fields);
        channel->started = true;
        outqueue_put(queue, FRAME_STARTED, STREAM_STDIN, channel->id, bytes, (uint32_t)fields.length);
    }
    if (server->fill && channel->started) {
        send_output(channel, queue);
        step(channel);
    }
    if (channel->ended && served_owes_eof(channel) && outqueue_has_room(queue, 1)) {
        outqueue_put(queue, FRAME_EOF, STREAM_STDOUT, channel->id, NULL, 0);
        channel->eof_sent = true;
    }
}

bool served_owes_eof(const struct channel *channel) {
    return channel->server && channel->server->fill && channel->started && !channel->eof_sent;
}

void served_take(struct channel *channel, const uint8_t *bytes, uint32_t length) { channel->server->take(channel, bytes, length); }

void served_eof(struct channel *channel) {
    if (channel->server->eof)
        channel->server->eof(channel);
}

void served_leave(struct channel *channel) {
    if (channel->server && channel->server->leave)
        channel->server->leave(channel);
    channel->server = NULL;
}
