// Owns: who listens and who is connected: the kernel's tables under /proc/net, and the processes behind them.
// Refuses: other network namespaces than the guest's first.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "fields.h"

void ports_list(struct fields request); // in a worker: it walks every descriptor of every process
bool port_has_listener(uint16_t port);
uint64_t ports_count_connections(uint16_t port); // established ones; in a worker: it reads all of both tables
