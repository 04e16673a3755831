// Owns: starting a command for `exec`: its user, environment, directory, session and terminal.
// Refuses: shells, and waiting: what happens to the process afterwards is the channel's.
#pragma once

#include "channel.h"

void exec_start(struct channel *channel, struct fields request);
