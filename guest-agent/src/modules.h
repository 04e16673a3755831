// Owns: loading the kernel modules that travel in the initramfs, in the order of their names.
// Refuses: dependencies: the host has sorted them.
#pragma once

// Those whose names contain `only`, and do not contain `but`; NULL: no such limit.
void modules_load(int directory, const char *only, const char *but);
