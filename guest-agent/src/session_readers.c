#include <stdlib.h>
#include <string.h>

#include "served.h"
#include "session_methods.h"
#include "sessions.h"

enum { RECORD_HEADER = 13, RECORD_GAP = 3, RECORD_STATE = 4, RECORD_RESTORE = 5, FOLLOW = 1 };
// With less window than this nothing is sent: the host grants more long before.
enum { RECORD_LEAST = 3 * RECORD_HEADER + 8 + MODES_RESTORE_MAX };

struct reader {
    struct session *session;
    struct cursor cursor;
    uint64_t until;
    uint64_t told; // the change that it knows of, 0: nothing yet
    unsigned streams;
    bool follows;
    bool told_end; // the state of its end, after all output
};

struct listing {
    struct session *at[SESSIONS_MAX];
    int count;
    int next;
};

struct watch {
    uint64_t told;
    uint64_t begun;
};

static size_t put_header(uint8_t *at, uint8_t kind, uint64_t sequence, size_t length) {
    at[0] = kind;
    store_u64(at + 1, sequence);
    store_u32(at + 9, (uint32_t)length);
    return RECORD_HEADER + length;
}

// 0: there is no room for it now.
static size_t put_state(const struct session *session, uint64_t sequence, uint8_t *at, size_t room) {
    uint8_t bytes[SESSION_DESCRIPTION_MAX];
    struct builder built = session_describe(session, bytes);
    if (RECORD_HEADER + built.length > room)
        return 0;
    memcpy(at + RECORD_HEADER, bytes, built.length);
    return put_header(at, RECORD_STATE, sequence, built.length);
}

// read

static size_t put_gap(const struct reader *reader, uint64_t from, uint8_t *at) {
    const struct session *session = reader->session;
    store_u64(at + RECORD_HEADER, reader->cursor.sequence);
    size_t length = put_header(at, RECORD_GAP, from, 8);
    if (session->pty) {
        size_t restore = modes_restore(&session->modes, at + length + RECORD_HEADER);
        if (restore)
            length += put_header(at + length, RECORD_RESTORE, reader->cursor.sequence, restore);
    }
    return length;
}

static bool has_all(const struct reader *reader) {
    uint64_t end = reader->session->log.end;
    return reader->cursor.sequence >= (reader->until < end ? reader->until : end);
}

// Its end is told after its output, whatever was told before.
static bool is_state_due(const struct reader *reader) {
    if (!reader->told)
        return true;
    if (session_is_over(reader->session))
        return reader->follows && !reader->told_end && has_all(reader);
    return reader->told != reader->session->change;
}

static size_t read_fill(struct channel *channel, uint8_t *at, size_t room) {
    struct reader *reader = channel->subject;
    const struct session *session = reader->session;
    uint64_t from, sequence;
    uint8_t stream;
    if (room < RECORD_LEAST)
        return 0;
    if (is_state_due(reader)) {
        size_t size = put_state(session, reader->cursor.sequence, at, room);
        reader->told = size ? session->change : reader->told;
        reader->told_end = size && session_is_over(session) && has_all(reader);
        return size;
    }
    if (!has_all(reader) && scrollback_skip_gap(&session->log, &reader->cursor, &from))
        return put_gap(reader, from, at);
    size_t size = scrollback_read(&session->log, &reader->cursor, reader->streams, reader->until, at + RECORD_HEADER,
                                  room - RECORD_HEADER, &stream, &sequence);
    // What nobody asked for was passed over: the state of the end may be due now.
    if (size == 0)
        return is_state_due(reader) ? read_fill(channel, at, room) : 0;
    return put_header(at, stream, sequence, size);
}

static void read_step(struct channel *channel) {
    struct reader *reader = channel->subject;
    const struct session *session = reader->session;
    if (session->state == SESSION_REMOVED)
        channel_end_text(channel, FAILURE_NO_SESSION, "%s: it was removed", session->id);
    else if (reader->follows ? reader->told_end : reader->told && has_all(reader))
        channel_end(channel, 0, NULL);
}

static void read_announce(struct channel *channel, struct builder *fields) {
    const struct reader *reader = channel->subject;
    session_build(reader->session, fields);
}

static void read_leave(struct channel *channel) {
    struct reader *reader = channel->subject;
    reader->session->readers--;
    sessions_release(reader->session);
    free(reader);
}

static void *new_subject(struct channel *channel, size_t size) {
    void *subject = calloc(1, size);
    if (!subject)
        channel_end_text(channel, ENOMEM, "%s", strerror(ENOMEM));
    return subject;
}

void session_method_read(struct channel *channel, struct fields request) {
    static const struct server reading = {.step = read_step, .announce = read_announce, .fill = read_fill, .leave = read_leave};
    uint64_t numbers[SESSION_NUMBERS] = {[4] = 1 << STREAM_STDOUT | 1 << STREAM_STDERR};
    unsigned given = 0;
    struct session *session = session_of(channel, request, numbers, &given);
    struct reader *reader = session ? new_subject(channel, sizeof *reader) : NULL;
    if (!reader)
        return;
    const struct scrollback *log = &session->log;
    *reader = (struct reader){.session = session, .streams = (unsigned)numbers[4]};
    reader->follows = numbers[5] & FOLLOW;
    reader->until = reader->follows ? UINT64_MAX : log->end;
    reader->cursor = scrollback_seek(log, numbers[2] < log->end ? numbers[2] : log->end);
    if (given & 1u << 3) {
        struct cursor tail = scrollback_tail(log, numbers[3], reader->streams);
        if (tail.sequence > reader->cursor.sequence)
            reader->cursor = tail;
    }
    session->readers++;
    sessions_hold(session);
    served_begin(channel, &reading, reader);
}

// list

static size_t list_fill(struct channel *channel, uint8_t *at, size_t room) {
    struct listing *listing = channel->subject;
    size_t length = 0, size;
    while (listing->next < listing->count) {
        const struct session *session = listing->at[listing->next];
        if (session->state != SESSION_REMOVED) {
            size = put_state(session, session->log.end, at + length, room - length);
            if (size == 0)
                return length;
            length += size;
        }
        listing->next++;
    }
    return length;
}

static void list_step(struct channel *channel) {
    struct listing *listing = channel->subject;
    if (channel->started && listing->next == listing->count)
        channel_end(channel, 0, NULL);
}

static void announce_nothing(struct channel *channel, struct builder *fields) {
    (void)channel;
    (void)fields;
}

static void list_leave(struct channel *channel) {
    struct listing *listing = channel->subject;
    for (int i = 0; i < listing->count; i++)
        sessions_release(listing->at[i]);
    free(listing);
}

void session_method_list(struct channel *channel, struct fields request) {
    static const struct server list = {.step = list_step, .announce = announce_nothing, .fill = list_fill, .leave = list_leave};
    (void)request;
    struct listing *listing = new_subject(channel, sizeof *listing);
    if (!listing)
        return;
    for (struct session *session; listing->count < SESSIONS_MAX && (session = sessions_at(listing->count));) {
        sessions_hold(session);
        listing->at[listing->count++] = session;
    }
    served_begin(channel, &list, listing);
}

// watch

static size_t put_gone(const char *id, uint8_t *at) {
    const uint8_t zeros[] = {3, 6, 7, 8, 10, 11, 12, 13};
    struct builder built = builder_in(at + RECORD_HEADER, RECORD_LEAST - RECORD_HEADER);
    build_text(&built, 1, id);
    build_number(&built, 2, SESSION_REMOVED);
    for (size_t i = 0; i < sizeof zeros; i++)
        build_number(&built, zeros[i], 0);
    return put_header(at, RECORD_STATE, 0, built.length);
}

static size_t watch_fill(struct channel *channel, uint8_t *at, size_t room) {
    struct watch *watch = channel->subject;
    struct session_news news;
    while (room >= RECORD_LEAST && sessions_next_change(watch->told, &news)) {
        size_t size = 0;
        if (news.session)
            size = put_state(news.session, news.session->log.end, at, room);
        else if (news.change > watch->begun)
            size = put_gone(news.id, at);
        if (size == 0 && news.session)
            return 0;
        watch->told = news.change;
        if (size)
            return size;
    }
    return 0;
}

static void watch_leave(struct channel *channel) { free(channel->subject); }

void session_method_watch(struct channel *channel, struct fields request) {
    static const struct server watching = {.announce = announce_nothing, .fill = watch_fill, .leave = watch_leave};
    (void)request;
    struct watch *watch = new_subject(channel, sizeof *watch);
    if (!watch)
        return;
    watch->begun = session_changes;
    served_begin(channel, &watching, watch);
}
