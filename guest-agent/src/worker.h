// Owns: child processes of the agent's own: whatever may block on a disk, a large directory or a pipe runs in one, so that
// the agent's loop never does. A worker talks to its channel by stdin, stdout and a report socket.
// Refuses: methods. A worker runs the function it is given and ends.
#pragma once

#include <stdnoreturn.h>

#include "channel.h"



typedef void worker_function(struct fields request);

// Forks; the child never returns. streams: a bit per descriptor number 0 and 1. On failure the channel has its END.
void worker_start(struct channel *channel, worker_function *function, struct fields request, int streams);

// For code that runs in the child
struct child_pipes {
    int parent[3]; // the agent's ends, -1 where there is none
    int child[3];
    int report_parent;
    int report_child;
};

// Streams is a bit per descriptor number 0–2. Returns -1 with errno and nothing left open.
int child_pipes_open(struct child_pipes *pipes, int streams);
void child_pipes_close(struct child_pipes *pipes);
// In the child: its ends become 0–2 (/dev/null where there is none), the report socket 3, everything else is closed,
// signals are as a new program expects them.
void child_pipes_enter(struct child_pipes *pipes);
// In the agent: hands the agent's ends to the channel.
void child_pipes_adopt(struct child_pipes *pipes, struct channel *channel);

// Whether the agent has let go of this worker: it closes the report socket before the worker's input.
bool worker_is_abandoned(void);
noreturn void report_failure(const struct failure *failure);
noreturn void report_done(const struct builder *fields);
void report_started(const struct builder *fields);
bool write_all(int fd, const void *bytes, size_t length);
