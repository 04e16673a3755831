#define _GNU_SOURCE
#include "scrollback.h"

#include <string.h>
#include <sys/mman.h>

#include "frame.h"

// Before the bytes of each run: u32, the stream in its upper 8 bits, the length below.
enum { RUN_HEADER = 4, PAGE = 4096 };

struct run {
    uint8_t stream;
    uint32_t length;
};

bool scrollback_open(struct scrollback *log, uint64_t limit) {
    limit = limit < SCROLLBACK_MIN ? SCROLLBACK_MIN : limit > SCROLLBACK_MAX ? SCROLLBACK_MAX : limit;
    *log = (struct scrollback){.limit = ((size_t)limit + PAGE - 1) / PAGE * PAGE};
    // The kernel gives a page when it is first written.
    void *memory = mmap(NULL, log->limit, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    log->ring = memory == MAP_FAILED ? NULL : memory;
    return log->ring != NULL;
}

void scrollback_close(struct scrollback *log) {
    if (log->ring)
        munmap(log->ring, log->limit);
    log->ring = NULL;
}

size_t scrollback_memory(const struct scrollback *log) { return log->tail < log->limit ? (size_t)log->tail : log->limit; }

static void put(struct scrollback *log, uint64_t position, const uint8_t *bytes, size_t length) {
    size_t at = position % log->limit;
    size_t first = log->limit - at < length ? log->limit - at : length;
    memcpy(log->ring + at, bytes, first);
    memcpy(log->ring, bytes + first, length - first);
}

static void get(const struct scrollback *log, uint64_t position, uint8_t *bytes, size_t length) {
    size_t at = position % log->limit;
    size_t first = log->limit - at < length ? log->limit - at : length;
    memcpy(bytes, log->ring + at, first);
    memcpy(bytes + first, log->ring, length - first);
}

static struct run run_at(const struct scrollback *log, uint64_t position) {
    uint8_t header[RUN_HEADER];
    get(log, position, header, sizeof header);
    uint32_t word = load_u32(header);
    return (struct run){.stream = (uint8_t)(word >> 24), .length = word & 0xffffff};
}

static void put_run(struct scrollback *log, uint64_t position, struct run run) {
    uint8_t header[RUN_HEADER];
    store_u32(header, (uint32_t)run.stream << 24 | run.length);
    put(log, position, header, sizeof header);
}

static void make_room(struct scrollback *log, size_t length, scrollback_dropped *dropped, void *context) {
    uint8_t bytes[SCROLLBACK_RUN];
    while (log->tail - log->head + length > log->limit) {
        struct run run = run_at(log, log->head);
        if (dropped) {
            get(log, log->head + RUN_HEADER, bytes, run.length);
            dropped(context, bytes, run.length);
        }
        log->head += RUN_HEADER + run.length;
        log->begin += run.length;
    }
}

void scrollback_append(struct scrollback *log, uint8_t stream, const uint8_t *bytes, size_t length, scrollback_dropped *dropped,
                       void *context) {
    while (length) {
        struct run run = {.stream = stream};
        bool extends = false;
        if (log->tail > log->head) {
            run = run_at(log, log->last);
            extends = run.stream == stream && run.length < SCROLLBACK_RUN;
        }
        if (!extends)
            run = (struct run){.stream = stream};
        size_t size = SCROLLBACK_RUN - run.length < length ? SCROLLBACK_RUN - run.length : length;
        // A quarter of the smallest ring is more than a run: the newest is never what gives way.
        make_room(log, size + (extends ? 0 : RUN_HEADER), dropped, context);
        if (!extends) {
            log->last = log->tail;
            log->tail += RUN_HEADER;
        }
        put(log, log->tail, bytes, size);
        run.length += (uint32_t)size;
        put_run(log, log->last, run);
        log->tail += size;
        log->end += size;
        bytes += size;
        length -= size;
    }
}

static struct cursor first(const struct scrollback *log) { return (struct cursor){.sequence = log->begin, .position = log->head}; }

// To the next run, when this one has been read. False at the end of the log.
static bool advance(const struct scrollback *log, struct cursor *cursor, struct run *run) {
    while (cursor->position < log->tail) {
        *run = run_at(log, cursor->position);
        if (cursor->offset < run->length)
            return true;
        if (cursor->position == log->last)
            return false; // it may be extended
        cursor->position += RUN_HEADER + run->length;
        cursor->offset = 0;
    }
    return false;
}

struct cursor scrollback_seek(const struct scrollback *log, uint64_t sequence) {
    struct cursor cursor = first(log);
    struct run run;
    if (sequence < log->begin)
        cursor = (struct cursor){.sequence = sequence}; // nowhere: the first read tells of the gap
    else
        while (cursor.sequence < sequence && advance(log, &cursor, &run)) {
            uint64_t left = sequence - cursor.sequence;
            uint32_t step = left < run.length ? (uint32_t)left : run.length;
            cursor.offset += step;
            cursor.sequence += step;
        }
    return cursor;
}

// Counts the ends of lines in all of it; or, with a limit, moves the cursor behind that one.
static uint64_t pass_lines(const struct scrollback *log, struct cursor *cursor, unsigned streams, uint64_t limit, bool *whole) {
    uint8_t bytes[SCROLLBACK_RUN];
    uint64_t lines = 0;
    struct run run;
    while (lines < limit && advance(log, cursor, &run)) {
        uint32_t used = run.length;
        get(log, cursor->position + RUN_HEADER, bytes, run.length);
        if (streams & 1u << run.stream) {
            *whole = bytes[run.length - 1] == '\n';
            for (const uint8_t *at = bytes; lines < limit && (at = memchr(at, '\n', (size_t)(bytes + run.length - at))); at++)
                if (++lines == limit)
                    used = (uint32_t)(at + 1 - bytes);
        }
        cursor->offset = used;
        cursor->sequence += used;
    }
    return lines;
}

struct cursor scrollback_tail(const struct scrollback *log, uint64_t lines, unsigned streams) {
    struct cursor cursor = first(log);
    bool whole = true;
    uint64_t all = pass_lines(log, &cursor, streams, UINT64_MAX, &whole);
    all += !whole;
    if (lines == 0)
        return cursor;
    cursor = first(log);
    if (all > lines)
        pass_lines(log, &cursor, streams, all - lines, &whole);
    return cursor;
}

bool scrollback_skip_gap(const struct scrollback *log, struct cursor *cursor, uint64_t *from) {
    if (cursor->position >= log->head && cursor->sequence >= log->begin)
        return false;
    *from = cursor->sequence;
    *cursor = first(log);
    return *from < log->begin;
}

size_t scrollback_read(const struct scrollback *log, struct cursor *cursor, unsigned streams, uint64_t until, uint8_t *out,
                       size_t size, uint8_t *stream, uint64_t *sequence) {
    size_t length = 0;
    struct run run;
    while (length < size && cursor->sequence < until && advance(log, cursor, &run)) {
        uint32_t left = run.length - cursor->offset;
        if (until - cursor->sequence < left)
            left = (uint32_t)(until - cursor->sequence);
        bool wanted = streams & 1u << run.stream;
        if (length && (!wanted || run.stream != *stream))
            break; // what is not wanted would be a hole in it
        if (wanted) {
            left = size - length < left ? (uint32_t)(size - length) : left;
            *sequence = length ? *sequence : cursor->sequence;
            *stream = run.stream;
            get(log, cursor->position + RUN_HEADER + cursor->offset, out + length, left);
            length += left;
        }
        cursor->offset += left;
        cursor->sequence += left;
    }
    return length;
}
