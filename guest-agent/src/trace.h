// Owns: time since boot, the named boot stages, and the one way this program logs (the kernel's log).
// Refuses: log levels, formats, files. Whoever debugs a boot reads the serial console.
#pragma once

#include <stddef.h>
#include <stdint.h>

enum { STAGES_MAX = 16 };

struct stages {
    struct {
        char name[16];
        uint64_t uptime_us;
    } at[STAGES_MAX];
    int count;
};

// CLOCK_BOOTTIME, so that a guest's suspended time counts as the host sees it.
uint64_t uptime_us(void);
void stage_reached(struct stages *stages, const char *name);

// One line at KERN_ERR: shown on the console even under `quiet`.
void log_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_to_stderr(void);
