// Owns: loading the kernel modules that travel in the initramfs, in the order of their names.
// Refuses: dependencies: the host has sorted them.
#pragma once

void modules_load(int directory);
