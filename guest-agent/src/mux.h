// Owns: one conversation with the host: the parser, the output queue and the table of channels.
// Refuses: descriptors of the transport, and timers: the agent's loop has them. Everything here is memory of fixed bounds.
// Invariant: an inbound frame is only handled while the queue has room for every answer it can cause.
#pragma once

#include "channel.h"

enum { MUX_CHANNELS = 256, MUX_TABLE = 2 * MUX_CHANNELS, MUX_INPUT = 131072 };

struct mux {
    struct parser parser;
    struct outqueue queue;
    struct channel *channels[MUX_TABLE]; // live ones, and those of an earlier conversation that still have a process
    int count;
    uint8_t input[MUX_INPUT];

    void *context;
    void (*open)(void *context, struct channel *channel, uint16_t method, struct fields request);
    void (*welcome)(void *context, struct builder *fields);
};

void mux_init(struct mux *mux);
// The host went away: every channel is abandoned, what is unsent is forgotten.
void mux_host_gone(struct mux *mux, uint64_t now_us);
// Handles the frames that have arrived, as far as the answers find room.
void mux_dispatch(struct mux *mux, uint64_t now_us);
// True while dispatch stopped for lack of room: reading more would only grow the parser's buffer.
bool mux_is_stuffed(const struct mux *mux);
// Whether a channel would send more at once, and the queue takes it.
bool mux_has_output(const struct mux *mux);
void mux_notice_exits(struct mux *mux, uint64_t now_us);
uint64_t mux_next_timer(const struct mux *mux);
void mux_timers(struct mux *mux, uint64_t now_us);
void mux_settle(struct mux *mux);
