// Owns: the method exec: a command whose life is its channel's.
#pragma once

#include "channel.h"

void exec_start(struct channel *channel, struct fields request);
