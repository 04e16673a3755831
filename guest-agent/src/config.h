// Owns: the boot configuration: its keys, bounds and checks.
// Refuses: guessing. A value that does not parse is an error with its line; unknown keys are for newer programs and are skipped.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CHANNELS_MAX = 4, RESOLVERS_MAX = 4 };

enum channel_kind { CHANNEL_VIRTIO_SERIAL, CHANNEL_VSOCK };

struct channel_place {
    enum channel_kind kind;
    char name[64];
    uint32_t port;
};

struct config {
    char hostname[64];
    char root[64]; // serials, or /dev/… paths; empty: none
    char work[64];
    char modules[64];
    bool has_address;
    uint8_t address[4];
    int prefix_length;
    bool has_gateway;
    uint8_t gateway[4];
    uint8_t resolvers[RESOLVERS_MAX][4];
    int resolver_count;
    struct channel_place channels[CHANNELS_MAX];
    int channel_count;
    char init[256]; // "auto", "none" or a path
    bool grow;
};

// Cuts text up in place; it needs no final newline. Returns false with the offending line in error.
bool config_parse(struct config *config, char *text, size_t length, char *error, size_t error_size);
