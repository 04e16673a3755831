// Owns: channels whose other end is no process of theirs but the agent's memory: their STARTED, output, EOF, and leaving.
// Refuses: knowing what is served: that is behind `struct server`.
#pragma once

#include "channel.h"

// Any function may be missing. `subject` of the channel is the server's.
struct server {
    // Before and after each round of output: the place for channel_end(), once everything was delivered.
    void (*step)(struct channel *channel);
    void (*announce)(struct channel *channel, struct builder *fields); // what STARTED says; missing: it has no streams
    // The next bytes of stdout, at most `room`; 0: none now.
    size_t (*fill)(struct channel *channel, uint8_t *at, size_t room);
    void (*take)(struct channel *channel, const uint8_t *bytes, uint32_t length); // calls channel_taken() for them, some time
    void (*eof)(struct channel *channel);
    void (*leave)(struct channel *channel); // the channel is over, or its host has gone
};

void served_begin(struct channel *channel, const struct server *server, void *subject);
void served_step(struct channel *channel, struct outqueue *queue);
bool served_owes_eof(const struct channel *channel);
void served_take(struct channel *channel, const uint8_t *bytes, uint32_t length);
void served_eof(struct channel *channel);
void served_leave(struct channel *channel);
