// Owns: the agent's loop: one thread, one poll(2), everything that waits.
// Refuses: blocking. After the loop has begun only poll(2) waits, until a requested power-off is forced.
#pragma once

#include <stdnoreturn.h>

#include "methods.h"
#include "transport.h"

struct agent_options {
    enum agent_mode mode;
    struct transport *transport;
    struct stages *stages;
    int ready_fd; // closed after the first turn of the loop, -1: nobody waits
    int go_fd;    // gives one byte, the mode, when PID 1 has done what commands rely on; -1: it has
};

noreturn void agent_run(const struct agent_options *options);
