// Owns: the guest's first addresses, by ioctl: loopback, the first Ethernet NIC, the default route.
// Refuses: IPv6 and everything a distribution may do afterwards.
#pragma once

#include "config.h"

void net_up(const struct config *config, int uevents);
