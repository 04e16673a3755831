#include "fields.h"

#include <string.h>

#include "frame.h"

struct fields fields_of(const uint8_t *payload, size_t length) {
    return (struct fields){.at = payload, .end = payload + length};
}

bool fields_next(struct fields *fields, struct field *field) {
    size_t left = (size_t)(fields->end - fields->at);
    if (left == 0 || fields->malformed)
        return false;
    if (left < FIELD_HEADER || load_u32(fields->at + 1) > left - FIELD_HEADER) {
        fields->malformed = true;
        return false;
    }
    field->tag = fields->at[0];
    field->length = load_u32(fields->at + 1);
    field->bytes = fields->at + FIELD_HEADER;
    fields->at = field->bytes + field->length;
    return true;
}

bool field_number(const struct field *field, uint64_t *value) {
    if (field->length != 8)
        return false;
    *value = load_u64(field->bytes);
    return true;
}

bool field_text(const struct field *field, char *out, size_t size) {
    if (field->length >= size || memchr(field->bytes, 0, field->length))
        return false;
    memcpy(out, field->bytes, field->length);
    out[field->length] = 0;
    return true;
}

struct builder builder_in(uint8_t *buffer, size_t capacity) {
    return (struct builder){.buffer = buffer, .capacity = capacity};
}

void build_raw(struct builder *builder, const void *bytes, size_t length) {
    if (builder->overflowed || length > builder->capacity - builder->length) {
        builder->overflowed = true;
        return;
    }
    if (length)
        memcpy(builder->buffer + builder->length, bytes, length);
    builder->length += length;
}

void build_bytes(struct builder *builder, uint8_t tag, const void *bytes, size_t length) {
    uint8_t header[FIELD_HEADER] = {tag};
    store_u32(header + 1, (uint32_t)length);
    if (builder->overflowed || length > UINT32_MAX || FIELD_HEADER + length > builder->capacity - builder->length) {
        builder->overflowed = true;
        return;
    }
    build_raw(builder, header, sizeof header);
    build_raw(builder, bytes, length);
}

void build_text(struct builder *builder, uint8_t tag, const char *text) {
    build_bytes(builder, tag, text, strlen(text));
}

void build_number(struct builder *builder, uint8_t tag, uint64_t value) {
    uint8_t bytes[8];
    store_u64(bytes, value);
    build_bytes(builder, tag, bytes, sizeof bytes);
}
