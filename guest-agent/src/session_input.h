// Owns: what waits to be read by a session's command: of the present writer, and of those that have left.
// Refuses: knowing writers: it counts whose bytes were taken.
// Invariant: at most two windows wait, so a writer whose window is respected always finds room.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "frame.h"

enum { SESSION_INPUT_MAX = 2 * FRAME_WINDOW + 64 };

struct session_input {
    int fd;      // -1: no stdin, or closed
    bool closes; // once all is taken
    uint8_t *ring; // allocated when the command first lags behind
    uint32_t start;
    uint32_t length;
    uint32_t left_behind; // of these, the first so many are of writers that have left
};

// Each returns how many bytes of the present writer have found their reader, or never will.
uint32_t session_input_give(struct session_input *input, const uint8_t *bytes, uint32_t length);
uint32_t session_input_pump(struct session_input *input);
// EOF: a pipe is closed once all is taken; on a terminal its EOF character follows when it is in canonical mode.
void session_input_end(struct session_input *input, bool terminal);
void session_input_leave(struct session_input *input);
// Room for another writer's window.
bool session_input_has_room(const struct session_input *input);
void session_input_close(struct session_input *input);
