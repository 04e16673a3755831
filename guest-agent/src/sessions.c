#include "sessions.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/sysinfo.h>

enum { TURN_BYTES = 262144, MEMORY_SHARE = 4, MEMORY_LEAST = 8 << 20 };

static struct {
    struct session *at[SESSIONS_MAX]; // by age
    int count;
    int turn; // which one reads first
    struct {
        char id[SESSION_ID_MAX + 1];
        uint64_t change;
    } gone[SESSIONS_MAX]; // a ring
    int gone_next;
} table;

struct session *sessions_find(const char *id) {
    for (int i = 0; i < table.count; i++)
        if (table.at[i]->state != SESSION_UNSTARTED && strcmp(table.at[i]->id, id) == 0)
            return table.at[i];
    return NULL;
}

void sessions_hold(struct session *session) { session->holders++; }

void sessions_release(struct session *session) {
    session->holders--;
    if (session->state == SESSION_REMOVED && session->holders == 0)
        session_free(session);
}

static void take_out(struct session *session) {
    for (int i = 0; i < table.count; i++) {
        if (table.at[i] != session)
            continue;
        memmove(&table.at[i], &table.at[i + 1], (size_t)(table.count - i - 1) * sizeof *table.at);
        table.count--;
        return;
    }
}

void sessions_remove(struct session *session) {
    int next = table.gone_next++ % SESSIONS_MAX;
    memcpy(table.gone[next].id, session->id, sizeof session->id);
    session_changed(session);
    table.gone[next].change = session->change;
    take_out(session);
    session->state = SESSION_REMOVED;
    if (session->holders == 0)
        session_free(session);
}

// One that has ended will not take more memory than it has.
static size_t reserved(void) {
    size_t bytes = 0;
    for (int i = 0; i < table.count; i++)
        bytes += session_is_over(table.at[i]) ? scrollback_memory(&table.at[i]->log) : table.at[i]->log.limit;
    return bytes;
}

static size_t memory_limit(void) {
    struct sysinfo info = {0};
    sysinfo(&info);
    uint64_t share = (uint64_t)info.totalram * info.mem_unit / MEMORY_SHARE;
    return share < MEMORY_LEAST ? MEMORY_LEAST : (size_t)share;
}

static bool forget_oldest(void) {
    for (int i = 0; i < table.count; i++) {
        if (!session_is_over(table.at[i]))
            continue;
        sessions_remove(table.at[i]);
        return true;
    }
    return false;
}

static bool make_room(uint64_t scrollback, struct failure *failure) {
    size_t limit = memory_limit();
    while (table.count == SESSIONS_MAX)
        if (!forget_oldest()) {
            failure_set(failure, FAILURE_TOO_MANY_SESSIONS, "%d sessions are running", SESSIONS_MAX);
            return false;
        }
    while (reserved() + scrollback > limit)
        if (!forget_oldest()) {
            failure_set(failure, ENOMEM, "the scroll-back of all sessions would take more than %zu MiB", limit >> 20);
            return false;
        }
    return true;
}

struct session *sessions_start(const struct session_request *request, struct failure *failure) {
    char id[SESSION_ID_MAX + 1];
    if (!field_text(&request->id, id, sizeof id) || sessions_find(id)) {
        failure_set(failure, EEXIST, "%s: there is such a session", id);
        return NULL;
    }
    if (!make_room(request->scrollback, failure))
        return NULL;
    struct session *session = session_start(request, failure);
    if (session)
        table.at[table.count++] = session;
    return session;
}

static bool is_shown(const struct session *session) {
    return session->state != SESSION_STARTING && session->state != SESSION_UNSTARTED;
}

struct session *sessions_at(int place) {
    for (int i = 0; i < table.count; i++)
        if (is_shown(table.at[i]) && place-- == 0)
            return table.at[i];
    return NULL;
}

bool sessions_next_change(uint64_t after, struct session_news *news) {
    *news = (struct session_news){.change = UINT64_MAX};
    for (int i = 0; i < table.count; i++) {
        const struct session *session = table.at[i];
        if (is_shown(session) && session->change > after && session->change < news->change)
            *news = (struct session_news){session, session->id, session->change};
    }
    for (int i = 0; i < SESSIONS_MAX; i++)
        if (table.gone[i].change > after && table.gone[i].change < news->change)
            *news = (struct session_news){NULL, table.gone[i].id, table.gone[i].change};
    return news->change != UINT64_MAX;
}

int sessions_want(struct pollfd *slots) {
    for (int i = 0; i < table.count; i++)
        session_want(table.at[i], slots + i * SESSION_POLL_SLOTS);
    return table.count;
}

// What they say in one turn of the loop is bounded, so that channels have theirs; each is first in its turn.
void sessions_ready(const struct pollfd *slots, int count) {
    size_t budget = TURN_BYTES;
    for (int i = 0; i < count; i++) {
        int place = (table.turn + i) % count;
        session_ready(table.at[place], slots + place * SESSION_POLL_SLOTS, &budget);
    }
    table.turn = count ? (table.turn + 1) % count : 0;
}

void sessions_notice_exits(void) {
    for (int i = 0; i < table.count; i++)
        session_notice_exit(table.at[i]);
}

void sessions_step(uint64_t now_us) {
    for (int i = 0; i < table.count;) {
        struct session *session = table.at[i];
        session_step(session, now_us);
        if (session->state == SESSION_UNSTARTED && session->exited) {
            take_out(session);
            session->state = SESSION_REMOVED; // `failure` tells whoever waits for its start
            if (session->holders == 0)
                session_free(session);
            continue;
        }
        i++;
    }
}

uint64_t sessions_next_timer(void) {
    uint64_t next = UINT64_MAX;
    for (int i = 0; i < table.count; i++) {
        uint64_t timer = session_next_timer(table.at[i]);
        next = timer < next ? timer : next;
    }
    return next;
}

void sessions_stop_all(uint64_t kill_at_us) {
    for (int i = 0; i < table.count; i++)
        session_stop(table.at[i], kill_at_us);
}

bool sessions_run(void) {
    for (int i = 0; i < table.count; i++)
        if (!session_is_over(table.at[i]))
            return true;
    return false;
}

void sessions_kill_all(void) {
    for (int i = 0; i < table.count; i++)
        if (!session_is_over(table.at[i]))
            session_signal(table.at[i], SIGKILL);
}
