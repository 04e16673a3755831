// Owns: the table of methods: which runs where, and the small ones that need no process.
// Refuses: anything that may block: that is a worker's.
#pragma once

#include "channel.h"
#include "power.h"
#include "trace.h"

enum agent_mode { MODE_HANDOVER, MODE_RESIDENT, MODE_TEST };

// What the methods share with the loop
struct agent_state {
    enum agent_mode mode;
    struct stages *stages;
    uint64_t ready_us;
    // Set by power_off and reboot, carried out by the loop once END is on its way.
    bool power_requested;
    enum power power;
    uint64_t power_grace_us;
};

void method_open(struct agent_state *state, struct channel *channel, uint16_t method, struct fields request);
void method_welcome(const struct agent_state *state, struct builder *fields);
