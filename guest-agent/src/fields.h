// Owns: reading and building the `tag, length, bytes` fields of a payload.
// Refuses: allocation. A reader points into its payload; a builder fills a buffer of the caller and remembers when it overflowed.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { FIELD_HEADER = 5 };

struct fields {
    const uint8_t *at;
    const uint8_t *end;
    bool malformed; // a length reached past the end
};

struct field {
    uint8_t tag;
    uint32_t length;
    const uint8_t *bytes;
};

struct fields fields_of(const uint8_t *payload, size_t length);
bool fields_next(struct fields *fields, struct field *field);
bool field_number(const struct field *field, uint64_t *value);
// Copies a field as a C string. False when it holds a NUL byte or does not fit.
bool field_text(const struct field *field, char *out, size_t size);

struct builder {
    uint8_t *buffer;
    size_t capacity;
    size_t length;
    bool overflowed;
};

struct builder builder_in(uint8_t *buffer, size_t capacity);
void build_raw(struct builder *builder, const void *bytes, size_t length);
void build_bytes(struct builder *builder, uint8_t tag, const void *bytes, size_t length);
void build_text(struct builder *builder, uint8_t tag, const char *text);
void build_number(struct builder *builder, uint8_t tag, uint64_t value);
