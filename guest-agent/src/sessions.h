// Owns: the table of sessions: at most 128, those that have ended give way, oldest first; and the names of those that went.
// Refuses: channels. There is one table, the agent's.
#pragma once

#include "session.h"

enum { SESSIONS_MAX = 128, SESSIONS_POLL_SLOTS = SESSIONS_MAX * SESSION_POLL_SLOTS };

// NULL with the failure: the id is taken, or nothing gives way.
struct session *sessions_start(const struct session_request *request, struct failure *failure);
struct session *sessions_find(const char *id);
void sessions_remove(struct session *session);
// Whoever keeps a session beyond this turn of the loop holds it; the last to let go of a removed one frees it.
void sessions_hold(struct session *session);
void sessions_release(struct session *session);

// By age, those that run or have run. NULL: no more.
struct session *sessions_at(int place);
// What changed first after the change of that number. False: nothing did.
struct session_news {
    const struct session *session; // NULL: it went
    const char *id;
    uint64_t change;
};
bool sessions_next_change(uint64_t after, struct session_news *news);

int sessions_want(struct pollfd *slots); // how many sessions it made slots for
void sessions_ready(const struct pollfd *slots, int count);
void sessions_notice_exits(void);
void sessions_step(uint64_t now_us);
uint64_t sessions_next_timer(void);
// The machine goes down: asks all to end. Whether any still runs.
void sessions_stop_all(uint64_t kill_at_us);
bool sessions_run(void);
void sessions_kill_all(void);
