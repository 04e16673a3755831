// Owns: what the host may do to sessions: the methods 16 to 24, each on a channel that the agent's memory serves.
// Refuses: keeping anything beyond its channel but the sessions themselves.
#pragma once

#include "channel.h"

void session_method_start(struct channel *channel, struct fields request);
void session_method_write(struct channel *channel, struct fields request);
void session_method_signal(struct channel *channel, struct fields request);
void session_method_resize(struct channel *channel, struct fields request);
void session_method_stop(struct channel *channel, struct fields request);
void session_method_remove(struct channel *channel, struct fields request);

// session_readers.c
void session_method_list(struct channel *channel, struct fields request);
void session_method_read(struct channel *channel, struct fields request);
void session_method_watch(struct channel *channel, struct fields request);

struct session;
enum { SESSION_NUMBERS = 6 };

// Of a request about one session: the session, and its numbers by tag. NULL, and the channel has its END.
struct session *session_of(struct channel *channel, struct fields request, uint64_t numbers[SESSION_NUMBERS], unsigned *given);
