#include "outqueue.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

void outqueue_clear(struct outqueue *queue) { queue->head = queue->tail = 0; }

size_t outqueue_used(const struct outqueue *queue) { return queue->tail - queue->head; }

bool outqueue_has_room(const struct outqueue *queue, int frames) {
    return OUTQUEUE_CAPACITY - outqueue_used(queue) >= (size_t)frames * FRAME_MAX;
}

bool outqueue_takes_data(const struct outqueue *queue) { return outqueue_used(queue) < OUTQUEUE_DATA_LIMIT; }

uint8_t *outqueue_reserve(struct outqueue *queue) {
    assert(outqueue_has_room(queue, 1));
    if (OUTQUEUE_CAPACITY - queue->tail < FRAME_MAX) {
        memmove(queue->buffer, queue->buffer + queue->head, outqueue_used(queue));
        queue->tail -= queue->head;
        queue->head = 0;
    }
    return queue->buffer + queue->tail;
}

void outqueue_commit(struct outqueue *queue, enum frame_type type, enum stream stream, uint32_t channel, uint32_t length) {
    frame_put_header(queue->buffer + queue->tail, type, stream, channel, length);
    queue->tail += FRAME_HEADER + length;
}

void outqueue_put(struct outqueue *queue, enum frame_type type, enum stream stream, uint32_t channel, const void *payload,
                  uint32_t length) {
    uint8_t *at = outqueue_reserve(queue);
    if (length)
        memcpy(at + FRAME_HEADER, payload, length);
    outqueue_commit(queue, type, stream, channel, length);
}

void outqueue_put_end(struct outqueue *queue, uint32_t channel, uint32_t code, const void *fields, uint32_t length) {
    uint8_t *at = outqueue_reserve(queue);
    store_u32(at + FRAME_HEADER, code);
    if (length)
        memcpy(at + FRAME_HEADER + 4, fields, length);
    outqueue_commit(queue, FRAME_END, STREAM_STDIN, channel, 4 + length);
}

bool outqueue_flush(struct outqueue *queue, int fd) {
    while (queue->head < queue->tail) {
        // A virtio port takes at most 32 KiB per write and copies it: more would only be cut.
        size_t size = queue->tail - queue->head;
        ssize_t written = write(fd, queue->buffer + queue->head, size < 32768 ? size : 32768);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return false;
        queue->head += (size_t)written;
    }
    queue->head = queue->tail = 0;
    return true;
}
