// Owns: what the guest uses: bytes on its network cards, room on its file systems, who is connected to a port of it.
// Refuses: rates. The host keeps what it was told before.
#pragma once

#include "fields.h"

void usage_report(struct fields request); // in a worker: a guest may have any number of connections
