#include "session_methods.h"

#include <signal.h>
#include <string.h>

#include "served.h"
#include "sessions.h"
#include "trace.h"

enum { STEAL = 1, STOP_GRACE_MS = 10000, STOP_GRACE_MAX_MS = 86400000 };

static bool is_id(const struct field *field) {
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    for (uint32_t i = 0; i < field->length; i++)
        if (!field->bytes[i] || !strchr(letters, field->bytes[i]))
            return false;
    return field->length > 0 && field->length <= SESSION_ID_MAX;
}

struct session *session_of(struct channel *channel, struct fields request, uint64_t numbers[SESSION_NUMBERS], unsigned *given) {
    char id[SESSION_ID_MAX + 1] = "";
    struct field field;
    while (fields_next(&request, &field)) {
        if (field.tag == 1 && is_id(&field)) {
            field_text(&field, id, sizeof id);
        } else if (field.tag == 1 || (field.tag < SESSION_NUMBERS && !field_number(&field, &numbers[field.tag]))) {
            channel_end_text(channel, FAILURE_BAD_REQUEST, "malformed fields");
            return NULL;
        }
        *given |= field.tag < SESSION_NUMBERS ? 1u << field.tag : 0;
    }
    if (request.malformed || !*id) {
        channel_end_text(channel, request.malformed ? FAILURE_BAD_REQUEST : EINVAL, "a session's id is required");
        return NULL;
    }
    struct session *session = sessions_find(id);
    if (session && session->state != SESSION_STARTING)
        return session;
    channel_end_text(channel, FAILURE_NO_SESSION, "%s: no such session", id);
    return NULL;
}

static void end_with_description(struct channel *channel, const struct session *session) {
    uint8_t bytes[FIELD_HEADER + SESSION_DESCRIPTION_MAX];
    struct builder fields = builder_in(bytes, sizeof bytes);
    session_build(session, &fields);
    channel_end(channel, 0, &fields);
}

static void end_with_errno(struct channel *channel, int error, const char *what) {
    if (error)
        channel_end_text(channel, (uint32_t)error, "%s: %s", what, strerror(error));
    else
        channel_end(channel, 0, NULL);
}

static void let_go(struct channel *channel) { sessions_release(channel->subject); }

// start

static void await_start(struct channel *channel) {
    struct session *session = channel->subject;
    if (session->failure.code && session->state == SESSION_REMOVED)
        channel_end_text(channel, session->failure.code, "%s", session->failure.text);
    else if (session->state != SESSION_STARTING && session->state != SESSION_UNSTARTED)
        end_with_description(channel, session);
}

void session_method_start(struct channel *channel, struct fields request) {
    static const struct server starting = {.step = await_start, .leave = let_go};
    struct session_request asked = {.scrollback = SCROLLBACK_DEFAULT};
    struct failure failure;
    struct field field;
    bool proper = command_parse(&asked.command, request);
    asked.command.required_tag = 9;
    asked.command.dies_with_agent = true;
    while (fields_next(&request, &field)) {
        if (field.tag == 8) {
            asked.id = field;
            proper = proper && is_id(&field);
        } else if (field.tag == 11) {
            proper = proper && field_number(&field, &asked.scrollback);
        }
    }
    if (!proper) {
        channel_end_text(channel, FAILURE_BAD_REQUEST, "malformed fields");
        return;
    }
    if (!asked.id.bytes || asked.scrollback > SCROLLBACK_MAX) {
        channel_end_text(channel, EINVAL, asked.id.bytes ? "so much is not kept of a session" : "a session's id is required");
        return;
    }
    struct session *session = sessions_start(&asked, &failure);
    if (!session) {
        channel_end_text(channel, failure.code, "%s", failure.text);
        return;
    }
    sessions_hold(session);
    served_begin(channel, &starting, session);
}

// write

static void announce(struct channel *channel, struct builder *fields) { session_build(channel->subject, fields); }

static void write_step(struct channel *channel) {
    struct session *session = channel->subject;
    if (session->writer != channel) {
        channel_end_text(channel, FAILURE_TAKEN, "%s: somebody else has taken over", session->id);
        return;
    }
    channel_taken(channel, session->taken);
    session->taken = 0;
    bool done = channel->input.ended && session->input.length == 0;
    if (channel->started && (done || session->input.fd < 0))
        channel_end(channel, 0, NULL);
}

static void write_take(struct channel *channel, const uint8_t *bytes, uint32_t length) {
    struct session *session = channel->subject;
    if (session->writer == channel)
        session_write(session, bytes, length);
}

static void write_eof(struct channel *channel) {
    struct session *session = channel->subject;
    if (session->writer == channel)
        session_end_input(session);
}

static void write_leave(struct channel *channel) {
    struct session *session = channel->subject;
    if (session->writer == channel)
        session_set_writer(session, NULL);
    sessions_release(session);
}

void session_method_write(struct channel *channel, struct fields request) {
    static const struct server writing = {
        .step = write_step, .announce = announce, .take = write_take, .eof = write_eof, .leave = write_leave};
    uint64_t numbers[SESSION_NUMBERS] = {0};
    unsigned given = 0;
    struct session *session = session_of(channel, request, numbers, &given);
    if (!session)
        return;
    if (session_is_over(session))
        channel_end_text(channel, ESRCH, "%s: it has ended", session->id);
    else if (!session_takes_input(session))
        channel_end_text(channel, EPIPE, "%s: it has no standard input, or that is closed", session->id);
    else if (session->writer && !(numbers[2] & STEAL))
        channel_end_text(channel, FAILURE_TAKEN, "%s: somebody else writes to it", session->id);
    else if (!session_input_has_room(&session->input))
        channel_end_text(channel, EBUSY, "%s: it has not read what was written before", session->id);
    if (channel->ended)
        return;
    session_set_writer(session, channel);
    sessions_hold(session);
    served_begin(channel, &writing, session);
}

// What is done at once, and stop

void session_method_signal(struct channel *channel, struct fields request) {
    uint64_t numbers[SESSION_NUMBERS] = {0};
    unsigned given = 0;
    struct session *session = session_of(channel, request, numbers, &given);
    if (!session)
        return;
    if (numbers[2] == 0 || numbers[2] >= 65)
        channel_end_text(channel, EINVAL, "a signal is 1 to 64");
    else
        end_with_errno(channel, session_signal(session, (int)numbers[2]), session->id);
}

void session_method_resize(struct channel *channel, struct fields request) {
    uint64_t numbers[SESSION_NUMBERS] = {0};
    unsigned given = 0;
    struct session *session = session_of(channel, request, numbers, &given);
    if (!session)
        return;
    if (!numbers[2] || numbers[2] > UINT16_MAX || !numbers[3] || numbers[3] > UINT16_MAX)
        channel_end_text(channel, EINVAL, "rows and columns are 1 to %d", UINT16_MAX);
    else
        end_with_errno(channel, session_resize(session, (uint16_t)numbers[2], (uint16_t)numbers[3]), session->id);
}

static void await_end(struct channel *channel) {
    struct session *session = channel->subject;
    if (session_is_over(session))
        end_with_description(channel, session);
}

void session_method_stop(struct channel *channel, struct fields request) {
    static const struct server stopping = {.step = await_end, .leave = let_go};
    uint64_t numbers[SESSION_NUMBERS] = {[2] = STOP_GRACE_MS};
    unsigned given = 0;
    struct session *session = session_of(channel, request, numbers, &given);
    if (!session)
        return;
    uint64_t grace = numbers[2] < STOP_GRACE_MAX_MS ? numbers[2] : STOP_GRACE_MAX_MS;
    session_stop(session, uptime_us() + grace * 1000);
    sessions_hold(session);
    served_begin(channel, &stopping, session);
}

void session_method_remove(struct channel *channel, struct fields request) {
    uint64_t numbers[SESSION_NUMBERS] = {0};
    unsigned given = 0;
    struct session *session = session_of(channel, request, numbers, &given);
    if (!session)
        return;
    if (!session_is_over(session)) {
        channel_end_text(channel, EBUSY, "%s: it runs", session->id);
        return;
    }
    sessions_remove(session);
    channel_end(channel, 0, NULL);
}
