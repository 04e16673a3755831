// Owns: how the guest goes down: asking the distribution's init in its own language, and doing it without one.
// Refuses: deciding when. Nothing here runs on a test's host: the caller sees to that.
#pragma once

#include <stdbool.h>
#include <stdnoreturn.h>

enum power { POWER_OFF, POWER_REBOOT };
enum power_answer { POWER_ASKED, POWER_NOT_YET, POWER_NOBODY };

// Asks PID 1. NOT_YET: it does not handle the signal so far, as happens early in its start: ask again soon.
enum power_answer power_ask(enum power power, bool resident);
// Ends every other process, makes the disks clean, and stops the machine.
noreturn void power_force(enum power power);
