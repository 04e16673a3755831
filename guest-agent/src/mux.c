#include "mux.h"

#include <string.h>

enum { ANSWER_FRAMES = 3, CONTROL_SIGNAL = 1, CONTROL_RESIZE = 2 };

void mux_init(struct mux *mux) { parser_init(&mux->parser, mux->input, sizeof mux->input); }

static void abandon_all(struct mux *mux, uint64_t now_us) {
    for (int i = 0; i < mux->count; i++)
        channel_abandon(mux->channels[i], HOST_GONE, now_us);
    outqueue_clear(&mux->queue);
}

void mux_host_gone(struct mux *mux, uint64_t now_us) {
    parser_forget(&mux->parser);
    abandon_all(mux, now_us);
}

static struct channel *find_channel(const struct mux *mux, uint32_t id) {
    for (int i = 0; i < mux->count; i++)
        if (mux->channels[i]->id == id && mux->channels[i]->host != HOST_GONE)
            return mux->channels[i];
    return NULL;
}

static void meet(struct mux *mux, const struct frame *frame, uint64_t now_us) {
    uint8_t payload[4096];
    struct builder fields = builder_in(payload, sizeof payload);
    abandon_all(mux, now_us);
    build_raw(&fields, frame->payload, FRAME_MAGIC + FRAME_NONCE);
    mux->welcome(mux->context, &fields);
    outqueue_put(&mux->queue, FRAME_WELCOME, STREAM_STDIN, 0, payload, (uint32_t)fields.length);
}

static int live_channels(const struct mux *mux) {
    int live = 0;
    for (int i = 0; i < mux->count; i++)
        live += mux->channels[i]->host != HOST_GONE;
    return live;
}

static void open_channel(struct mux *mux, const struct frame *frame) {
    struct channel *channel = NULL;
    if (mux->count < MUX_TABLE && live_channels(mux) < MUX_CHANNELS)
        channel = channel_new(frame->channel);
    if (!channel) {
        outqueue_put_end(&mux->queue, frame->channel, FAILURE_TOO_MANY_CHANNELS, NULL, 0);
        return;
    }
    mux->channels[mux->count++] = channel;
    mux->open(mux->context, channel, load_u16(frame->payload), fields_of(frame->payload + 2, frame->length - 2));
    // A request that is already answered gives its place back, so that a burst of small ones never fills the table.
    if (!channel->pid && channel_settle(channel, &mux->queue)) {
        channel_free(channel);
        mux->count--;
    }
}

static void control(struct channel *channel, const struct frame *frame) {
    struct fields fields = fields_of(frame->payload + 2, frame->length - 2);
    uint64_t numbers[3] = {0};
    struct field field;
    while (fields_next(&fields, &field))
        if (field.tag < 3)
            field_number(&field, &numbers[field.tag]);
    uint16_t code = load_u16(frame->payload);
    if (code == CONTROL_SIGNAL && numbers[1] > 0 && numbers[1] < 65)
        channel_signal(channel, (int)numbers[1]);
    else if (code == CONTROL_RESIZE)
        channel_resize(channel, (uint16_t)numbers[1], (uint16_t)numbers[2]);
}

// False: the host broke the protocol.
static bool handle(struct mux *mux, const struct frame *frame, uint64_t now_us) {
    if (frame->type == FRAME_HELLO) {
        meet(mux, frame, now_us);
        return true;
    }
    struct channel *channel = find_channel(mux, frame->channel);
    if (frame->type == FRAME_OPEN) {
        if (channel)
            return false;
        open_channel(mux, frame);
        return true;
    }
    if (!channel || channel->host != HOST_PRESENT)
        return true; // it crossed our END
    switch (frame->type) {
    case FRAME_DATA:
        return frame->stream != STREAM_STDIN || channel_data(channel, frame->payload, frame->length);
    case FRAME_EOF:
        if (frame->stream == STREAM_STDIN)
            channel_eof(channel);
        return true;
    case FRAME_GRANT:
        channel_grant(channel, (enum stream)frame->stream, load_u32(frame->payload));
        return true;
    case FRAME_CONTROL:
        control(channel, frame);
        return true;
    default: // FRAME_CLOSE: the parser lets nothing else through
        channel_abandon(channel, HOST_ABANDONED, now_us);
        return true;
    }
}

void mux_dispatch(struct mux *mux, uint64_t now_us) {
    struct frame frame;
    while (outqueue_has_room(&mux->queue, ANSWER_FRAMES)) {
        enum parse_result result = parser_next(&mux->parser, &frame);
        if (result == PARSE_MORE)
            return;
        if (result == PARSE_FRAME && handle(mux, &frame, now_us))
            continue;
        mux->parser.searching = true;
        abandon_all(mux, now_us);
    }
}

bool mux_is_stuffed(const struct mux *mux) { return !outqueue_has_room(&mux->queue, ANSWER_FRAMES); }

bool mux_has_output(const struct mux *mux) {
    for (int i = 0; i < mux->count; i++)
        if (mux->channels[i]->more && mux->channels[i]->server && outqueue_takes_data(&mux->queue))
            return true;
    return false;
}

void mux_notice_exits(struct mux *mux, uint64_t now_us) {
    for (int i = 0; i < mux->count; i++)
        channel_notice_exit(mux->channels[i], now_us);
}

uint64_t mux_next_timer(const struct mux *mux) {
    uint64_t next = UINT64_MAX;
    for (int i = 0; i < mux->count; i++) {
        uint64_t timer = channel_next_timer(mux->channels[i]);
        next = timer < next ? timer : next;
    }
    return next;
}

void mux_timers(struct mux *mux, uint64_t now_us) {
    for (int i = 0; i < mux->count; i++)
        channel_timers(mux->channels[i], &mux->queue, now_us);
}

void mux_settle(struct mux *mux) {
    for (int i = 0; i < mux->count;) {
        if (!channel_settle(mux->channels[i], &mux->queue)) {
            i++;
            continue;
        }
        channel_free(mux->channels[i]);
        mux->channels[i] = mux->channels[--mux->count];
    }
}
