// Owns: the one byte stream to the host: finding and opening it, its edges (readable, writable, host gone).
// Refuses: frames. A virtio port is opened once and held: a second opener gets EBUSY, and closing it loses bytes.
#pragma once

#include <stdbool.h>

#include "config.h"

struct transport {
    const struct channel_place *places;
    int place_count;
    bool is_port;
    int fd;        // the stream, -1: nobody is connected (vsock)
    int listen_fd; // vsock
    int epoll_fd;  // edge-triggered: a port without a host would otherwise report POLLHUP without end
    bool readable; // until read() said EAGAIN
    bool writable;
    bool hung_up; // a port's host went away; it may be back by now
};

void transport_init(struct transport *transport, const struct channel_place *places, int place_count);
void transport_adopt(struct transport *transport, int fd);
bool transport_is_open(const struct transport *transport);
// Opens the first of the places that exists. False when none does yet.
bool transport_try(struct transport *transport);
void transport_close(struct transport *transport);
// Takes the edges that epoll has. True when the host came anew by a new connection: the conversation starts over.
bool transport_take_events(struct transport *transport);
// Of a port: whether nobody is at its other end now.
bool transport_host_is_absent(const struct transport *transport);
