// Owns: the way from the host to a command's stdin: what the command has not taken yet, its end, what is granted again.
// Refuses: output, and the command's end: that is channel.c's.
#pragma once

#include "channel.h"

void channel_input_drop(struct channel *channel);
// Writes what waits, as far as the command takes it.
void channel_input_pump(struct channel *channel);
