// Owns: whom a command runs as: a user by name or number, and becoming it. For code that runs in the child.
// Refuses: returning after a failure: it is reported to the agent and the child ends.
#pragma once

#include <stdint.h>
#include <stdnoreturn.h>
#include <sys/types.h>

struct account {
    uid_t uid;
    gid_t gid;
    char name[256];
    char home[1024];
    char shell[1024];
};

// A name, or uid[:gid]. A uid without an account is welcome: containers have such.
void account_find(const char *wanted, struct account *account);
void account_become(const struct account *account);
// Reports `what: reason`.
noreturn void fail_command(uint32_t code, const char *what);
