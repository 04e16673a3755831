// LLVMFuzzerTestOneInput for the frame parser and the fields; with -DSTANDALONE a driver of its own that mutates conversations, so that
// gcc's sanitizers suffice. The first byte of an input chooses the size of the pieces in which the rest arrives.
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "fields.h"
#include "frame.h"

static void walk_fields(const uint8_t *payload, size_t length) {
    struct fields fields = fields_of(payload, length);
    struct field field;
    char text[64];
    uint64_t number;
    const uint8_t *before = payload;
    while (fields_next(&fields, &field)) {
        CHECK(field.bytes >= before + FIELD_HEADER && field.bytes + field.length <= payload + length);
        before = field.bytes;
        field_text(&field, text, sizeof text);
        field_number(&field, &number);
    }
}

static void drain(struct parser *parser) {
    struct frame frame;
    enum parse_result result;
    int malformed = 0;
    while ((result = parser_next(parser, &frame)) != PARSE_MORE) {
        if (result == PARSE_MALFORMED) {
            CHECK(parser->searching && !malformed++);
            continue;
        }
        CHECK(!parser->searching);
        CHECK(!malformed || frame.type == FRAME_HELLO); // only a HELLO ends the search
        malformed = 0;
        CHECK(frame.length <= FRAME_PAYLOAD_MAX && frame.stream <= STREAM_STDERR);
        CHECK(frame.payload >= parser->buffer && frame.payload + frame.length <= parser->buffer + parser->end);
        if (frame.type == FRAME_HELLO)
            CHECK(frame.length >= FRAME_HELLO_MIN && memcmp(frame.payload, frame_magic, FRAME_MAGIC) == 0);
        walk_fields(frame.payload, frame.length);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static uint8_t buffer[2 * FRAME_MAX];
    struct parser parser;
    if (size == 0)
        return 0;
    size_t piece = data[0] ? data[0] * 7u : sizeof buffer;
    parser_init(&parser, buffer, sizeof buffer);
    parser.searching = data[0] & 1;
    for (size_t at = 1; at < size;) {
        size_t room;
        uint8_t *space = parser_space(&parser, &room);
        CHECK(room > 0);
        size_t step = size - at < piece ? size - at : piece;
        step = step < room ? step : room;
        memcpy(space, data + at, step);
        parser_filled(&parser, step);
        at += step;
        drain(&parser);
    }
    walk_fields(data, size);
    return 0;
}

#ifdef STANDALONE

enum { CASE_MAX = 65536 };

static uint64_t state = 0x9e3779b97f4a7c15u;

static uint32_t draw(uint32_t limit) { // xorshift64: the same cases in every run
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 32) % limit;
}

static size_t add_frame(uint8_t *at) {
    static const uint8_t types[] = {FRAME_HELLO, FRAME_OPEN, FRAME_DATA, FRAME_DATA, FRAME_EOF, FRAME_GRANT, FRAME_CONTROL, FRAME_CLOSE};
    uint8_t type = types[draw(sizeof types)];
    uint32_t length = type == FRAME_EOF || type == FRAME_CLOSE ? 0 : type == FRAME_GRANT ? 4 : 2 + draw(60);
    if (type == FRAME_HELLO)
        length = FRAME_HELLO_MIN + draw(20);
    if (type == FRAME_DATA && draw(20) == 0)
        length = draw(FRAME_PAYLOAD_MAX + 1);
    frame_put_header(at, type, STREAM_STDIN, type == FRAME_HELLO ? 0 : 1 + draw(3), length);
    for (uint32_t i = 0; i < length; i++)
        at[FRAME_HEADER + i] = (uint8_t)draw(draw(2) ? 256 : 12);
    if (type == FRAME_HELLO)
        memcpy(at + FRAME_HEADER, frame_magic, FRAME_MAGIC);
    return FRAME_HEADER + length;
}

static size_t make_case(uint8_t *data) {
    size_t size = 1;
    data[0] = (uint8_t)draw(256);
    for (uint32_t frames = draw(6); frames && size < CASE_MAX - 2 * FRAME_MAX; frames--) {
        if (draw(8) == 0) {
            size_t zeros = draw(4) ? draw(64) : FRAME_MAX;
            memset(data + size, 0, zeros);
            size += zeros;
        }
        size_t added = add_frame(data + size);
        size += draw(10) ? added : draw((uint32_t)added + 1); // cut now and then
    }
    for (uint32_t changes = draw(6); changes && size; changes--)
        data[draw((uint32_t)size)] = (uint8_t)draw(256);
    return size;
}

int main(int argc, char **argv) {
    static uint8_t data[CASE_MAX];
    long cases = argc > 1 ? atol(argv[1]) : 200000;
    for (long i = 0; i < cases; i++)
        LLVMFuzzerTestOneInput(data, make_case(data));
    fprintf(stderr, "%ld cases\n", cases);
    return 0;
}

#endif
