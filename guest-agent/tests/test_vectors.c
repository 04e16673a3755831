// The parser and the codec against vectors.json, in the line form that the pytest wrapper derives from it:
//   case NAME START        START is search or framed
//   in HEX ZEROS           the next bytes: hex (or -), then that many zeros
//   frame TYPE STREAM CHANNEL HEX ZEROS | malformed      what must come out, in order
//   end                    the case is run, with the input cut into pieces of several sizes
//   encode TYPE STREAM CHANNEL HEX ZEROS = HEX ZEROS     frame_put_header() and the payload
//   fields HEX TAG:HEX,…   / badfields HEX
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "check.h"
#include "fields.h"
#include "frame.h"

enum { INPUT_MAX = 1 << 18, LINE_MAX_BYTES = 1 << 17, EVENTS_MAX = 32 };

struct event {
    bool malformed;
    unsigned type, stream, channel;
    uint8_t *payload;
    size_t length;
};

static uint8_t input[INPUT_MAX];
static size_t input_length;
static struct event events[EVENTS_MAX];
static int event_count;

static size_t from_hex(const char *hex, uint8_t *out) {
    size_t length = 0;
    if (strcmp(hex, "-") == 0)
        return 0;
    for (; hex[0] && hex[1]; hex += 2) {
        char digits[3] = {hex[0], hex[1], 0};
        out[length++] = (uint8_t)strtoul(digits, NULL, 16);
    }
    return length;
}

static size_t take_bytes(uint8_t *out) {
    size_t length = from_hex(strtok(NULL, " \n"), out);
    size_t zeros = strtoul(strtok(NULL, " \n"), NULL, 10);
    memset(out + length, 0, zeros);
    return length + zeros;
}

static unsigned take_number(void) { return (unsigned)strtoul(strtok(NULL, " \n"), NULL, 10); }

static void add_event(void) {
    static uint8_t bytes[INPUT_MAX];
    CHECK(event_count < EVENTS_MAX);
    struct event *event = &events[event_count++];
    *event = (struct event){.type = take_number(), .stream = take_number(), .channel = take_number()};
    event->length = take_bytes(bytes);
    event->payload = malloc(event->length + 1);
    memcpy(event->payload, bytes, event->length);
}

static void expect(struct parser *parser, int *seen) {
    struct frame frame;
    enum parse_result result;
    while ((result = parser_next(parser, &frame)) != PARSE_MORE) {
        CHECK(*seen < event_count);
        const struct event *event = &events[(*seen)++];
        CHECK(event->malformed == (result == PARSE_MALFORMED));
        if (event->malformed)
            continue;
        CHECK(frame.type == event->type && frame.stream == event->stream && frame.channel == event->channel);
        CHECK(frame.length == event->length && memcmp(frame.payload, event->payload, event->length) == 0);
    }
}

static void run_case(const char *name, bool searching, size_t piece) {
    static uint8_t buffer[2 * FRAME_MAX];
    struct parser parser;
    int seen = 0;
    parser_init(&parser, buffer, sizeof buffer);
    parser.searching = searching;
    for (size_t at = 0; at < input_length;) {
        size_t room;
        uint8_t *space = parser_space(&parser, &room);
        size_t size = input_length - at < piece ? input_length - at : piece;
        size = size < room ? size : room;
        CHECK(size > 0);
        memcpy(space, input + at, size);
        parser_filled(&parser, size);
        at += size;
        expect(&parser, &seen);
    }
    if (seen != event_count)
        fprintf(stderr, "%s: %d of %d events in pieces of %zu\n", name, seen, event_count, piece);
    CHECK(seen == event_count);
}

static void end_case(const char *name, bool searching) {
    const size_t pieces[] = {1, 5, 12, 4096, INPUT_MAX};
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++)
        run_case(name, searching, pieces[i]);
    while (event_count)
        free(events[--event_count].payload);
    memset(events, 0, sizeof events);
    input_length = 0;
}

static void check_encoding(void) {
    static uint8_t made[INPUT_MAX], wanted[INPUT_MAX];
    unsigned type = take_number(), stream = take_number(), channel = take_number();
    size_t length = take_bytes(made + FRAME_HEADER);
    frame_put_header(made, (enum frame_type)type, (enum stream)stream, channel, (uint32_t)length);
    strtok(NULL, " \n");
    CHECK(take_bytes(wanted) == FRAME_HEADER + length);
    CHECK(memcmp(made, wanted, FRAME_HEADER + length) == 0);
}

static void check_fields(bool valid) {
    static uint8_t payload[INPUT_MAX], again[INPUT_MAX], value[INPUT_MAX];
    size_t length = from_hex(strtok(NULL, " \n"), payload);
    struct fields fields = fields_of(payload, length);
    struct builder builder = builder_in(again, sizeof again);
    struct field field;
    char *wanted = valid ? strtok(NULL, " \n") : NULL;
    while (fields_next(&fields, &field)) {
        build_bytes(&builder, field.tag, field.bytes, field.length);
        if (!valid)
            continue;
        char *rest, *hex = strchr(wanted, ':') + 1;
        CHECK(strtoul(wanted, NULL, 10) == field.tag);
        rest = hex + strcspn(hex, ",");
        bool more = *rest;
        *rest = 0;
        size_t size = from_hex(hex, value);
        CHECK(size == field.length && memcmp(value, field.bytes, size) == 0);
        wanted = more ? rest + 1 : rest;
    }
    CHECK(fields.malformed == !valid);
    CHECK(!valid || (builder.length == length && memcmp(again, payload, length) == 0));
}

int main(int argc, char **argv) {
    static char line[LINE_MAX_BYTES], name[128];
    bool searching = false;
    int cases = 0;
    FILE *file = argc == 2 ? fopen(argv[1], "r") : NULL;
    CHECK(file);
    while (fgets(line, sizeof line, file)) {
        char *word = strtok(line, " \n");
        if (!word)
            continue;
        if (strcmp(word, "case") == 0) {
            snprintf(name, sizeof name, "%s", strtok(NULL, " \n"));
            searching = strcmp(strtok(NULL, " \n"), "search") == 0;
        } else if (strcmp(word, "in") == 0) {
            input_length += take_bytes(input + input_length);
        } else if (strcmp(word, "frame") == 0) {
            add_event();
        } else if (strcmp(word, "malformed") == 0) {
            events[event_count++].malformed = true;
        } else if (strcmp(word, "end") == 0) {
            end_case(name, searching);
            cases++;
        } else if (strcmp(word, "encode") == 0) {
            check_encoding();
        } else {
            check_fields(strcmp(word, "fields") == 0);
        }
    }
    fclose(file);
    CHECK(cases > 20);
    fprintf(stderr, "%d cases\n", cases);
    return 0;
}
