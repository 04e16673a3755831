// Owns: what the host puts into the guest's root before anything of the guest runs: /banger/files, host name, hosts, resolv.conf.
// Refuses: removing anything of the user's but the very files it replaces. Runs after the switch of root, so that the guest's own links resolve.
#pragma once

#include "config.h"

// Copies the tree of that descriptor (the initramfs's /banger/files) onto /.
void place_files(int source);
void place_identity(const struct config *config);
// Frees the initramfs's memory: everything below, on that file system only.
void remove_tree(int directory);
