// Owns: the frame codec of protocol.md and the parser with its search mode.
// Refuses: input and output, memory of its own, any knowledge of channels beyond their number.
// Invariant: after PARSE_MALFORMED the parser searches, and only a whole HELLO ends the search.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    FRAME_HEADER = 12,
    FRAME_PAYLOAD_MAX = 16384,
    FRAME_MAX = FRAME_HEADER + FRAME_PAYLOAD_MAX,
    FRAME_MAGIC = 16,
    FRAME_NONCE = 16,
    FRAME_HELLO_MIN = FRAME_MAGIC + FRAME_NONCE,
    FRAME_WINDOW = 262144,
};

enum frame_type {
    FRAME_HELLO = 1,
    FRAME_WELCOME = 2,
    FRAME_OPEN = 3,
    FRAME_STARTED = 4,
    FRAME_DATA = 5,
    FRAME_EOF = 6,
    FRAME_GRANT = 7, // WINDOW in protocol.md
    FRAME_CONTROL = 8,
    FRAME_CLOSE = 9,
    FRAME_END = 10,
};

enum stream { STREAM_STDIN = 0, STREAM_STDOUT = 1, STREAM_STDERR = 2 };

extern const uint8_t frame_magic[FRAME_MAGIC];

struct frame {
    uint8_t type;
    uint8_t stream;
    uint32_t channel;
    uint32_t length;
    const uint8_t *payload; // into the parser's buffer: valid until the next parser call
};

enum parse_result { PARSE_FRAME, PARSE_MORE, PARSE_MALFORMED };

// The buffer belongs to the caller and holds at least FRAME_MAX bytes.
struct parser {
    uint8_t *buffer;
    size_t capacity;
    size_t start;
    size_t end;
    bool searching;
};

void parser_init(struct parser *parser, uint8_t *buffer, size_t capacity);
void parser_forget(struct parser *parser);
// Where the next bytes from the host go. The room is 0 only while parser_next() still has frames to give.
uint8_t *parser_space(struct parser *parser, size_t *room);
void parser_filled(struct parser *parser, size_t size);
enum parse_result parser_next(struct parser *parser, struct frame *frame);

void frame_put_header(uint8_t *at, enum frame_type type, enum stream stream, uint32_t channel, uint32_t length);
uint32_t load_u32(const uint8_t *at);
uint16_t load_u16(const uint8_t *at);
uint64_t load_u64(const uint8_t *at);
void store_u16(uint8_t *at, uint16_t value);
void store_u32(uint8_t *at, uint32_t value);
void store_u64(uint8_t *at, uint64_t value);
