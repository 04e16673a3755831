// Owns: one session: its command, its log, its input, its end, and being stopped.
// Refuses: channels, and the table of sessions. Whoever holds a session counts itself in `holders`.
// Invariant: its output is read whether anybody listens or not; it has ended only once that is over.
#pragma once

#include <poll.h>
#include <sys/types.h>

#include "command.h"
#include "modes.h"
#include "scrollback.h"
#include "session_input.h"

enum { SESSION_ID_MAX = 64, SESSION_TAGS_MAX = 4096, SESSION_POLL_SLOTS = 4, SESSION_DESCRIPTION_MAX = 12288 };
enum { SESSION_PTY = 1, SESSION_HAS_WRITER = 2, SESSION_TAKES_INPUT = 4 };

enum session_state {
    SESSION_STARTING,
    SESSION_RUNNING,
    SESSION_STOPPING,
    SESSION_EXITED,
    SESSION_STOPPED,
    SESSION_REMOVED,  // out of the table; its holders let go of it
    SESSION_UNSTARTED // `failure` says why
};

struct session {
    char id[SESSION_ID_MAX + 1];
    uint8_t *tags; // fields, as a description carries them
    size_t tags_length;
    enum session_state state;
    struct failure failure;
    pid_t pid;
    bool exited;
    bool reaped;
    int exit_code; // of waitid(2)
    int exit_status;
    bool pty;
    uint16_t rows;
    uint16_t columns;
    int report_fd;
    int output[2];
    struct session_input input;
    struct scrollback log;
    struct modes modes; // at the beginning of the log
    uint64_t started_ns;
    uint64_t ended_ns;
    uint64_t kill_at_us; // 0: nobody asked for its end, or that is done
    uint64_t look_at_us; // when to see whether something is left of its group
    uint64_t linger_at_us;
    uint64_t change; // the number of its last change, of all changes of all sessions
    uint32_t readers;
    uint32_t holders;
    const void *writer;
    uint32_t taken; // bytes of the writer that have found their reader since it last asked
};

extern uint64_t session_changes;

struct session_request {
    struct command command;
    struct field id;
    uint64_t scrollback;
};

// NULL with the failure. The command runs, or does not, once the state is no longer SESSION_STARTING.
struct session *session_start(const struct session_request *request, struct failure *failure);
void session_free(struct session *session);
bool session_is_over(const struct session *session);
// In SESSION_DESCRIPTION_MAX bytes
struct builder session_describe(const struct session *session, uint8_t *bytes);
// The same as field (1) of an answer
void session_build(const struct session *session, struct builder *fields);
void session_changed(struct session *session);

void session_want(const struct session *session, struct pollfd slots[SESSION_POLL_SLOTS]);
// Reads and writes what is ready, at most about `budget` bytes of output, which it lessens.
void session_ready(struct session *session, const struct pollfd slots[SESSION_POLL_SLOTS], size_t *budget);
void session_notice_exit(struct session *session);
// Carries out what is due. True when it has just ended.
bool session_step(struct session *session, uint64_t now_us);
uint64_t session_next_timer(const struct session *session);

void session_stop(struct session *session, uint64_t kill_at_us);
int session_signal(struct session *session, int signal); // an errno, 0: sent
int session_resize(struct session *session, uint16_t rows, uint16_t columns);
void session_set_writer(struct session *session, const void *writer);
void session_write(struct session *session, const uint8_t *bytes, uint32_t length);
void session_end_input(struct session *session);
bool session_takes_input(const struct session *session);
