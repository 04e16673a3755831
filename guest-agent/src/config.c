#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool copy_text(char *out, size_t size, const char *value) {
    size_t length = strlen(value);
    if (length == 0 || length >= size)
        return false;
    memcpy(out, value, length + 1);
    return true;
}

// Decimal digits only: strtoul(3) alone would take signs, blanks and other bases.
static const char *parse_number(const char *text, unsigned long limit, unsigned long *number) {
    size_t digits = strspn(text, "0123456789");
    if (digits == 0 || digits > 10)
        return NULL;
    *number = strtoul(text, NULL, 10);
    return *number <= limit ? text + digits : NULL;
}

static const char *parse_ipv4(const char *text, uint8_t address[4]) {
    for (int i = 0; i < 4; i++) {
        unsigned long byte;
        if (i > 0 && *text++ != '.')
            return NULL;
        text = parse_number(text, 255, &byte);
        if (!text)
            return NULL;
        address[i] = (uint8_t)byte;
    }
    return text;
}

static bool parse_whole_ipv4(const char *text, uint8_t address[4]) {
    text = parse_ipv4(text, address);
    return text && *text == 0;
}

static bool parse_address(struct config *config, const char *value) {
    unsigned long prefix;
    value = parse_ipv4(value, config->address);
    if (!value || *value++ != '/')
        return false;
    value = parse_number(value, 32, &prefix);
    config->prefix_length = (int)prefix;
    config->has_address = true;
    return value && *value == 0;
}

// resolv.conf(5) is read up to three; a fourth is already of no use.
static bool parse_resolver(struct config *config, const char *value) {
    uint8_t address[4];
    if (!parse_whole_ipv4(value, address))
        return false;
    if (config->resolver_count < RESOLVERS_MAX)
        memcpy(config->resolvers[config->resolver_count++], address, sizeof address);
    return true;
}

static bool parse_channel(struct config *config, const char *value) {
    if (config->channel_count == CHANNELS_MAX)
        return false;
    struct channel_place *place = &config->channels[config->channel_count++];
    if (strncmp(value, "virtio-serial:", 14) == 0) {
        place->kind = CHANNEL_VIRTIO_SERIAL;
        return copy_text(place->name, sizeof place->name, value + 14);
    }
    unsigned long port;
    if (strncmp(value, "vsock:", 6) != 0)
        return false;
    place->kind = CHANNEL_VSOCK;
    value = parse_number(value + 6, UINT32_MAX - 1, &port);
    place->port = (uint32_t)port;
    return value && *value == 0;
}

static bool parse_hostname(struct config *config, const char *value) {
    const char *allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-";
    return copy_text(config->hostname, sizeof config->hostname, value) && strspn(value, allowed) == strlen(value);
}

static bool parse_init(struct config *config, const char *value) {
    bool known = strcmp(value, "auto") == 0 || strcmp(value, "none") == 0 || value[0] == '/';
    return known && copy_text(config->init, sizeof config->init, value);
}

static bool parse_pair(struct config *config, const char *key, const char *value) {
    if (strcmp(key, "hostname") == 0)
        return parse_hostname(config, value);
    if (strcmp(key, "root") == 0)
        return copy_text(config->root, sizeof config->root, value);
    if (strcmp(key, "work") == 0)
        return copy_text(config->work, sizeof config->work, value);
    if (strcmp(key, "modules") == 0)
        return copy_text(config->modules, sizeof config->modules, value);
    if (strcmp(key, "address") == 0)
        return parse_address(config, value);
    if (strcmp(key, "gateway") == 0)
        return config->has_gateway = parse_whole_ipv4(value, config->gateway);
    if (strcmp(key, "dns") == 0)
        return parse_resolver(config, value);
    if (strcmp(key, "channel") == 0)
        return parse_channel(config, value);
    if (strcmp(key, "init") == 0)
        return parse_init(config, value);
    if (strcmp(key, "grow") == 0) {
        config->grow = strcmp(value, "yes") == 0;
        return config->grow || strcmp(value, "no") == 0;
    }
    return true;
}

bool config_parse(struct config *config, char *text, size_t length, char *error, size_t error_size) {
    *config = (struct config){.init = "auto"};
    char *end = text + length;
    while (text < end) {
        char *newline = memchr(text, '\n', (size_t)(end - text));
        char *line = text;
        char copy[512];
        size_t size = (size_t)((newline ? newline : end) - line);
        text = newline ? newline + 1 : end;
        if (size == 0 || *line == '#')
            continue;
        bool fits = size < sizeof copy && !memchr(line, 0, size);
        memcpy(copy, line, fits ? size : 0);
        copy[fits ? size : 0] = 0;
        char *equals = strchr(copy, '=');
        if (equals)
            *equals = 0;
        if (!equals || !parse_pair(config, copy, equals + 1)) {
            snprintf(error, error_size, "%.*s", (int)(size < 200 ? size : 200), line);
            return false;
        }
    }
    return true;
}
