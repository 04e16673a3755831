// Owns: the last output of a session, in a ring of fixed size: runs of bytes, each of one stream, numbered from 0 over both.
// Refuses: descriptors and readers: a reader has a cursor, which stays valid whatever the ring drops.
// Invariant: what is held begins and ends with a run; the ring takes memory only as far as it was ever written.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SCROLLBACK_MIN = 4096, SCROLLBACK_DEFAULT = 1 << 20, SCROLLBACK_MAX = 16 << 20, SCROLLBACK_RUN = 1024 };

struct scrollback {
    uint8_t *ring;
    size_t limit;
    uint64_t head; // positions in the ring, ever growing: of the oldest run,
    uint64_t last; // of the newest,
    uint64_t tail; // and behind it
    uint64_t begin; // sequence numbers
    uint64_t end;
};

struct cursor {
    uint64_t sequence;
    uint64_t position; // of a run
    uint32_t offset;   // in it
};

typedef void scrollback_dropped(void *context, const uint8_t *bytes, size_t length);

bool scrollback_open(struct scrollback *log, uint64_t limit); // false: no memory
void scrollback_close(struct scrollback *log);
size_t scrollback_memory(const struct scrollback *log);
// What gives way is shown to `dropped`, in order.
void scrollback_append(struct scrollback *log, uint8_t stream, const uint8_t *bytes, size_t length, scrollback_dropped *dropped,
                       void *context);

struct cursor scrollback_seek(const struct scrollback *log, uint64_t sequence);
// Where that many last lines of the streams (a bit each) begin; a last line without an end counts.
struct cursor scrollback_tail(const struct scrollback *log, uint64_t lines, unsigned streams);
// True when the cursor was moved over what is not held any more; its sequence number was `from`.
bool scrollback_skip_gap(const struct scrollback *log, struct cursor *cursor, uint64_t *from);
// The next bytes of one stream, at most `size`, before the sequence number `until`. 0: none; the cursor is at the end then.
size_t scrollback_read(const struct scrollback *log, struct cursor *cursor, unsigned streams, uint64_t until, uint8_t *out,
                       size_t size, uint8_t *stream, uint64_t *sequence);
