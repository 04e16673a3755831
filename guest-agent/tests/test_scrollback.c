// The ring of a session's output against a plain array as the oracle, and the modes that a cut terminal log restores.
#include <stdbool.h>
#include <string.h>

#include "check.h"
#include "modes.h"
#include "scrollback.h"

enum { WRITTEN = 400000, STDOUT = 1, STDERR = 2, BOTH = 1 << STDOUT | 1 << STDERR };

static uint8_t bytes[WRITTEN], streams[WRITTEN], dropped[WRITTEN];
static size_t dropped_length;
static uint32_t seed;

static uint32_t pick(uint32_t bound) {
    seed = seed * 1664525 + 1013904223;
    return (seed >> 8) % bound;
}

static void note(void *context, const uint8_t *from, size_t length) {
    CHECK(context == &seed);
    memcpy(dropped + dropped_length, from, length);
    dropped_length += length;
}

static void check_read(const struct scrollback *log, uint64_t since, unsigned wanted, uint64_t until) {
    struct cursor cursor = scrollback_seek(log, since);
    uint64_t from = 0, at = since;
    if (scrollback_skip_gap(log, &cursor, &from)) {
        CHECK(from == since && since < log->begin);
        at = log->begin;
    }
    CHECK(cursor.sequence == at);
    uint8_t out[5000], stream = 0;
    uint64_t sequence = 0;
    for (;;) {
        size_t size = scrollback_read(log, &cursor, wanted, until, out, 1 + pick(sizeof out), &stream, &sequence);
        uint64_t next = size ? sequence : until < log->end ? until : log->end;
        for (; at < next; at++)
            CHECK(!(wanted & 1u << streams[at]));
        if (size == 0)
            break;
        CHECK(memcmp(out, bytes + sequence, size) == 0);
        for (size_t i = 0; i < size; i++)
            CHECK(streams[sequence + i] == stream && (wanted & 1u << stream));
        at = sequence + size;
        CHECK(at <= until);
    }
}

static void check_tail(const struct scrollback *log, uint64_t lines, unsigned wanted) {
    uint64_t expected = log->end, found = 0;
    bool newest = true;
    if (lines) {
        for (expected = log->end; expected > log->begin; expected--) {
            if (!(wanted & 1u << streams[expected - 1]))
                continue;
            bool ends = bytes[expected - 1] == '\n';
            if (ends && !newest && ++found == lines)
                break;
            newest = false;
        }
    }
    struct cursor cursor = scrollback_tail(log, lines, wanted);
    // Between two lines may stand what nobody asked for: either side of it is right.
    uint64_t low = expected < cursor.sequence ? expected : cursor.sequence;
    uint64_t high = expected < cursor.sequence ? cursor.sequence : expected;
    for (; low < high; low++)
        CHECK(!(wanted & 1u << streams[low]));
}

static void a_ring_holds_the_newest_and_drops_in_order(void) {
    for (int round = 0; round < 60; round++) {
        struct scrollback log;
        seed = (uint32_t)round;
        dropped_length = 0;
        size_t limit = round % 3 == 0 ? 1 : 4096 + pick(60000);
        size_t total = 1 + pick(WRITTEN - 1);
        uint32_t burst = round % 4 == 0 ? 3 : 3000;
        CHECK(scrollback_open(&log, limit));
        struct cursor follower = scrollback_seek(&log, 0);
        uint64_t followed = 0;
        for (size_t at = 0; at < total;) {
            size_t size = 1 + pick(burst);
            size = total - at < size ? total - at : size;
            uint8_t stream = pick(3) ? STDOUT : STDERR;
            for (size_t i = 0; i < size; i++) {
                bytes[at + i] = pick(20) ? (uint8_t)pick(256) : '\n';
                streams[at + i] = stream;
            }
            scrollback_append(&log, stream, bytes + at, size, note, &seed);
            at += size;
            CHECK(log.end == at && log.tail - log.head <= log.limit && dropped_length == log.begin);
            if (pick(40) == 0) {
                uint64_t from, sequence;
                uint8_t out[700], got;
                if (scrollback_skip_gap(&log, &follower, &from)) {
                    CHECK(from == followed);
                    followed = log.begin;
                }
                size_t length = scrollback_read(&log, &follower, BOTH, UINT64_MAX, out, sizeof out, &got, &sequence);
                CHECK(length && sequence == followed && memcmp(out, bytes + followed, length) == 0);
                followed += length;
            }
        }
        CHECK(memcmp(dropped, bytes, dropped_length) == 0);
        CHECK(scrollback_memory(&log) <= log.limit);
        for (int i = 0; i < 30; i++) {
            uint64_t since = pick((uint32_t)total + 1), until = since + pick((uint32_t)(total - since) + 1);
            if (until >= log.begin)
                check_read(&log, since, 2 * (1 + pick(3)), until);
            check_read(&log, since, BOTH, UINT64_MAX);
            check_tail(&log, pick(50), BOTH);
            check_tail(&log, pick(50), 1 << STDERR);
        }
        scrollback_close(&log);
    }
}

static void restores(const char *fed, const char *expected) {
    struct modes modes = {0};
    uint8_t out[MODES_RESTORE_MAX];
    modes_feed(&modes, (const uint8_t *)fed, strlen(fed));
    size_t length = modes_restore(&modes, out);
    CHECK(length == strlen(expected) && memcmp(out, expected, length) == 0);
}

static void modes_are_those_that_hold(void) {
    restores("plain text\r\n\x1b[31mred\x1b[0m", "");
    restores("\x1b[?1049h\x1b[?25l", "\x1b[?1049h\x1b[?25l");
    restores("\x1b[?1049h\x1b[?1049l", "");
    restores("\x1b[?25l\x1b[?25h\x1b[?7l", "\x1b[?7l");
    restores("\x1b[?1000;1006;2004h\x1b[?1000l", "\x1b[?1006h\x1b[?2004h");
    restores("\x1b[2;23r\x1b[?6h", "\x1b[2;23r\x1b[?6h");
    restores("\x1b[5r", "\x1b[5r");
    restores("\x1b[2;23r\x1b[r", "");
    restores("\x1b(0\x0e\x1b=\x1b[4 q", "\x1b=\x1b(0\x0e\x1b[4 q");
    restores("\x1b(0\x1b(B", "");
    restores("\x1b[?1049h\x1b[?25l\x1b" "c", "");
    restores("\x1b[?1h\x1b[?25l\x1b=\x1b[!p", "");
    restores("\x1b]0;?25l title\x07", "");
    restores("\x1b]0;\x1b[?25l title\x07", "\x1b[?25l"); // ESC ends a string
}

static void what_is_cut_in_the_middle_is_begun_again(void) {
    restores("\x1b[?104", "\x1b[?104");
    restores("text\x1b", "\x1b");
    restores("\x1b]0;a title", "\x1b]");
    restores("\x1b]0;a title\x1b", "\x1b]\x1b");
    restores("\x1b]0;a title\x1b\\", "");
    restores("gr\xc3", "\xc3");
    restores("\xe2\x82", "\xe2\x82");
    restores("\xe2\x82\xac", "");
    restores("\xe2\x1b[?25l", "\x1b[?25l");
    restores("\x1b[?25\x18", "");
}

static void anything_may_be_fed(void) {
    static const char likely[] = "\x1b\x1b[[]??;;0123456789hlrqpcP^_()B0!m \\\x07\x18";
    struct modes modes = {0};
    uint8_t out[MODES_RESTORE_MAX], byte;
    seed = 7;
    for (int i = 0; i < 2000000; i++) {
        byte = pick(4) ? (uint8_t)likely[pick(sizeof likely - 1)] : (uint8_t)pick(256);
        modes_feed(&modes, &byte, 1);
        if (pick(50) == 0)
            CHECK(modes_restore(&modes, out) <= sizeof out);
    }
}

int main(void) {
    RUN(a_ring_holds_the_newest_and_drops_in_order);
    RUN(modes_are_those_that_hold);
    RUN(what_is_cut_in_the_middle_is_begun_again);
    RUN(anything_may_be_fed);
    return 0;
}
