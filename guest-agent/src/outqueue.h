// Owns: the frames waiting to be written to the host, in one buffer of fixed size.
// Refuses: growth. Whoever adds a frame asks for room first; data stops at half, so that ENDs and grants always find room.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "frame.h"

enum { OUTQUEUE_CAPACITY = 262144, OUTQUEUE_DATA_LIMIT = OUTQUEUE_CAPACITY / 2 };

struct outqueue {
    size_t head;
    size_t tail;
    uint8_t buffer[OUTQUEUE_CAPACITY];
};

void outqueue_clear(struct outqueue *queue);
size_t outqueue_used(const struct outqueue *queue);
// Room for that many more largest frames.
bool outqueue_has_room(const struct outqueue *queue, int frames);
bool outqueue_takes_data(const struct outqueue *queue);
// FRAME_MAX contiguous bytes to build a frame in; outqueue_commit() makes it part of the queue.
uint8_t *outqueue_reserve(struct outqueue *queue);
void outqueue_commit(struct outqueue *queue, enum frame_type type, enum stream stream, uint32_t channel, uint32_t length);
void outqueue_put(struct outqueue *queue, enum frame_type type, enum stream stream, uint32_t channel, const void *payload,
                  uint32_t length);
void outqueue_put_end(struct outqueue *queue, uint32_t channel, uint32_t code, const void *fields, uint32_t length);
// Writes what the descriptor takes. Returns false when it would block or failed; errno tells.
bool outqueue_flush(struct outqueue *queue, int fd);
