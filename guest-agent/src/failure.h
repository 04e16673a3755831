// Owns: the error codes that END carries, and the one shape in which pure functions report a failure.
#pragma once

#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>

enum {
    FAILURE_BAD_REQUEST = 1001,
    FAILURE_UNKNOWN_METHOD = 1002,
    FAILURE_TOO_MANY_CHANNELS = 1003,
    FAILURE_UNSAFE_PATH = 1004,
    FAILURE_UNKNOWN_USER = 1005,
    FAILURE_NO_SESSION = 1006,
    FAILURE_MISSING_COMMAND = 1007,
    FAILURE_TAKEN = 1008,
    FAILURE_TOO_MANY_SESSIONS = 1009,
};

struct failure {
    uint32_t code; // 0: none; an errno of the kernel's; or one of the above
    char text[256];
};

// Returns -1, so that `return failure_set(...)` both records and fails.
__attribute__((format(printf, 3, 4))) static inline int failure_set(struct failure *failure, uint32_t code, const char *format,
                                                                    ...) {
    failure->code = code;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(failure->text, sizeof failure->text, format, arguments);
    va_end(arguments);
    return -1;
}
