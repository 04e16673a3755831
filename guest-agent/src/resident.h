// Owns: PID 1 where the guest has no init of its own: reaping, the agent and sshd kept running, power by busybox init's signals.
// Refuses: being a service manager: sshd is the one service.
#pragma once

#include <stdnoreturn.h>
#include <sys/types.h>

// Mounts what a userland expects and finds no init to do.
void resident_mount(void);
// start_agent forks an agent and returns its pid.
noreturn void resident_run(pid_t agent, pid_t (*start_agent)(void));
