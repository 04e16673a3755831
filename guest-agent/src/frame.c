#include "frame.h"

#include <string.h>

const uint8_t frame_magic[FRAME_MAGIC] = {0xf0, 0x9f, 0x94, 0xa8, 'b',  'a',  'n',  'g',
                                          'e',  'r',  '/',  '1',  0x0d, 0x0a, 0x1a, 0x0a};

uint16_t load_u16(const uint8_t *at) { return (uint16_t)(at[0] | at[1] << 8); }

uint32_t load_u32(const uint8_t *at) { return (uint32_t)load_u16(at) | (uint32_t)load_u16(at + 2) << 16; }

uint64_t load_u64(const uint8_t *at) { return (uint64_t)load_u32(at) | (uint64_t)load_u32(at + 4) << 32; }

void store_u16(uint8_t *at, uint16_t value) {
    at[0] = (uint8_t)value;
    at[1] = (uint8_t)(value >> 8);
}

void store_u32(uint8_t *at, uint32_t value) {
    store_u16(at, (uint16_t)value);
    store_u16(at + 2, (uint16_t)(value >> 16));
}

void store_u64(uint8_t *at, uint64_t value) {
    store_u32(at, (uint32_t)value);
    store_u32(at + 4, (uint32_t)(value >> 32));
}

void frame_put_header(uint8_t *at, enum frame_type type, enum stream stream, uint32_t channel, uint32_t length) {
    at[0] = (uint8_t)type;
    at[1] = (uint8_t)stream;
    store_u16(at + 2, 0);
    store_u32(at + 4, channel);
    store_u32(at + 8, length);
}

void parser_init(struct parser *parser, uint8_t *buffer, size_t capacity) {
    *parser = (struct parser){.buffer = buffer, .capacity = capacity, .searching = true};
}

void parser_forget(struct parser *parser) {
    parser->start = parser->end = 0;
    parser->searching = true;
}

uint8_t *parser_space(struct parser *parser, size_t *room) {
    if (parser->start == parser->end)
        parser->start = parser->end = 0;
    if (parser->start > 0 && parser->capacity - parser->end < FRAME_MAX) {
        memmove(parser->buffer, parser->buffer + parser->start, parser->end - parser->start);
        parser->end -= parser->start;
        parser->start = 0;
    }
    *room = parser->capacity - parser->end;
    return parser->buffer + parser->end;
}

void parser_filled(struct parser *parser, size_t size) { parser->end += size; }

// What the header alone shows. HELLO's magic is checked when it has arrived.
static bool header_is_valid(const struct frame *frame) {
    if (frame->length > FRAME_PAYLOAD_MAX)
        return false;
    bool streams = frame->type == FRAME_DATA || frame->type == FRAME_EOF || frame->type == FRAME_GRANT;
    if (frame->stream > (streams ? STREAM_STDERR : 0))
        return false;
    if ((frame->channel == 0) != (frame->type == FRAME_HELLO))
        return false;
    switch (frame->type) {
    case FRAME_HELLO:
        return frame->length >= FRAME_HELLO_MIN;
    case FRAME_OPEN:
    case FRAME_CONTROL:
        return frame->length >= 2;
    case FRAME_DATA:
        return true;
    case FRAME_EOF:
    case FRAME_CLOSE:
        return frame->length == 0;
    case FRAME_GRANT:
        return frame->length == 4;
    default: // 0, unknown, or a frame that only the guest sends
        return false;
    }
}

static bool read_header(const uint8_t *at, struct frame *frame) {
    *frame = (struct frame){.type = at[0],
                            .stream = at[1],
                            .channel = load_u32(at + 4),
                            .length = load_u32(at + 8),
                            .payload = at + FRAME_HEADER};
    return load_u16(at + 2) == 0 && header_is_valid(frame);
}

// Moves start to the next place that can still become a HELLO. True when header and magic are there.
static bool find_hello(struct parser *parser) {
    enum { SEEN = FRAME_HEADER + FRAME_MAGIC };
    struct frame frame;
    while (parser->start < parser->end) {
        const uint8_t *at = memchr(parser->buffer + parser->start, FRAME_HELLO, parser->end - parser->start);
        if (!at) {
            parser->start = parser->end;
            return false;
        }
        parser->start = (size_t)(at - parser->buffer);
        if (parser->end - parser->start < SEEN)
            return false;
        if (read_header(at, &frame) && memcmp(at + FRAME_HEADER, frame_magic, FRAME_MAGIC) == 0)
            return true;
        parser->start++;
    }
    return false;
}

enum parse_result parser_next(struct parser *parser, struct frame *frame) {
    if (parser->searching && !find_hello(parser))
        return PARSE_MORE;
    size_t available = parser->end - parser->start;
    if (available < FRAME_HEADER)
        return PARSE_MORE;
    const uint8_t *at = parser->buffer + parser->start;
    bool valid = read_header(at, frame);
    if (valid && available < FRAME_HEADER + frame->length)
        return PARSE_MORE;
    if (valid && frame->type == FRAME_HELLO)
        valid = memcmp(frame->payload, frame_magic, FRAME_MAGIC) == 0;
    if (!valid) {
        // start stays: a HELLO may begin within what was taken for a header.
        parser->searching = true;
        return PARSE_MALFORMED;
    }
    parser->searching = false;
    parser->start += FRAME_HEADER + frame->length;
    return PARSE_FRAME;
}
