// Owns: PID 1's way from the kernel to a usable guest: mounts, modules, root, files, network, agent, and then the distribution's init.
// Refuses: repairing. A guest whose root or work disk is missing says so on the console and goes down.
#pragma once

#include <stdnoreturn.h>

noreturn void boot(int argc, char **argv, char **environment);
