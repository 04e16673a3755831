// Owns: starting a command: its user, environment, directory, session and terminal, and finding it in its PATH.
// Refuses: shells, and waiting: what happens to the process afterwards is exec's channel's, or a session's.
#pragma once

#include "worker.h"

enum { COMMAND_PTY = 1, COMMAND_STDIN = 2, COMMAND_MERGE = 4 };

struct command {
    struct fields request; // fields (1) to (7) of exec
    uint64_t flags;
    uint64_t rows;
    uint64_t columns;
    bool dies_with_agent; // nobody could find it otherwise
    uint8_t required_tag; // fields that name commands without which it is not started; 0: none
};

// False: a field is malformed.
bool command_parse(struct command *command, struct fields request);
// Forks. The report socket says how it went: closed by a successful execve, or an END. -1 with the failure and nothing open.
pid_t command_start(const struct command *command, struct child_pipes *pipes, struct failure *failure);
