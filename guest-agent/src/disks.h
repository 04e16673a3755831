// Owns: finding disks by serial, mounting them, growing their file systems.
// Refuses: making or repairing file systems: that is the host's business.
#pragma once

#include <stdbool.h>

#include "config.h"

// A serial, or a path under /dev. Waits for it. False and a line in the log when it never comes.
bool disk_find(const char *wanted, int uevents, char *path, unsigned path_size);
bool disk_mount(const char *device, const char *target, unsigned long flags);
// Enlarges the ext4 file system mounted there to its device; a no-op when it already fills it.
void disk_grow(const char *target);
