// Owns: the one byte stream to the host: finding and opening it, its edges (readable, writable, host gone).
// Refuses: frames. A virtio port is opened once and held: a second opener gets EBUSY, and closing it loses bytes.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "config.h"

struct transport {
    const struct channel_place *places;
    int place_count;
    bool is_port;
    int fd;        // the stream, -1: nobody is connected (vsock)
    int listen_fd; // vsock
    uint32_t listen_port;
    int knock_fd; // a connection to the host's port of the same number, which tells the host to connect to ours
    int knocks;   // so many were made
    uint64_t knock_at_us;
    int epoll_fd;  // edge-triggered: a port without a host would otherwise report POLLHUP without end
    bool readable; // until read() said EAGAIN
    bool writable;
    bool hung_up; // a port's host went away; it may be back by now
};

void transport_init(struct transport *transport, const struct channel_place *places, int place_count);
void transport_adopt(struct transport *transport, int fd);
bool transport_is_open(const struct transport *transport);
// Opens the first of the places that exists, and knocks where it listens. False when there is none yet.
bool transport_try(struct transport *transport);
void transport_close(struct transport *transport);
// Knocks when it is time to, which `knock_at_us` says. UINT64_MAX: the host has come, or was asked often enough.
void transport_knock(struct transport *transport, uint64_t now_us);
// Takes the edges that epoll has. True when the host came anew by a new connection: the conversation starts over.
bool transport_take_events(struct transport *transport);
// Of a port: whether nobody is at its other end now.
bool transport_host_is_absent(const struct transport *transport);
