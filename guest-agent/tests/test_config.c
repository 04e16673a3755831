#include <string.h>

#include "check.h"
#include "config.h"

static struct config config;
static char error[128];

static bool parse(const char *text) {
    char copy[4096];
    snprintf(copy, sizeof copy, "%s", text);
    return config_parse(&config, copy, strlen(copy), error, sizeof error);
}

static void a_full_configuration_is_read(void) {
    CHECK(parse("# a comment\nhostname=box-1\nroot=rootdisk\nwork=workdisk\nmodules=mods\naddress=10.1.2.3/24\n"
                "gateway=10.1.2.1\ndns=10.1.2.1\ndns=1.1.1.1\n\nchannel=virtio-serial:banger.agent\nchannel=vsock:1024\n"
                "init=/sbin/init\ngrow=yes\nfuture=key"));
    CHECK(strcmp(config.hostname, "box-1") == 0 && strcmp(config.root, "rootdisk") == 0);
    CHECK(strcmp(config.work, "workdisk") == 0 && strcmp(config.modules, "mods") == 0);
    CHECK(config.has_address && memcmp(config.address, "\x0a\x01\x02\x03", 4) == 0 && config.prefix_length == 24);
    CHECK(config.has_gateway && config.gateway[3] == 1 && config.resolver_count == 2 && config.resolvers[1][0] == 1);
    CHECK(config.channel_count == 2 && config.channels[0].kind == CHANNEL_VIRTIO_SERIAL);
    CHECK(strcmp(config.channels[0].name, "banger.agent") == 0);
    CHECK(config.channels[1].kind == CHANNEL_VSOCK && config.channels[1].port == 1024);
    CHECK(strcmp(config.init, "/sbin/init") == 0 && config.grow);
}

static void an_empty_configuration_is_the_default(void) {
    CHECK(parse(""));
    CHECK(strcmp(config.init, "auto") == 0 && !config.grow && !config.has_address && config.channel_count == 0);
}

static void more_resolvers_than_resolv_conf_takes_are_skipped(void) {
    CHECK(parse("dns=1.1.1.1\ndns=1.1.1.2\ndns=1.1.1.3\ndns=1.1.1.4\ndns=1.1.1.5\n"));
    CHECK(config.resolver_count == RESOLVERS_MAX);
}

static void what_does_not_parse_is_named(void) {
    static const char *const bad[] = {
        "hostname=",          "hostname=a/b",        "hostname=a.b",         "address=10.0.0.1",   "address=10.0.0.1/33", "address=10.0.0/24",
        "address=10.0.0.256/8", "address=10.0.0.1/24x", "address= 10.0.0.1/24", "gateway=10.0.0.1/24", "gateway=x",           "dns=::1",
        "channel=tcp:1",      "channel=vsock:",      "channel=vsock:1x",     "channel=vsock:99999999999", "init=sbin/init", "init=",
        "grow=maybe",         "no equals sign",      "root=",                "dns=-1.1.1.1",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (parse(bad[i]))
            fprintf(stderr, "accepted: %s\n", bad[i]);
        CHECK(!parse(bad[i]));
        CHECK(strcmp(error, bad[i]) == 0);
    }
}

static void bounds_hold(void) {
    char line[700];
    memset(line, 'a', sizeof line);
    memcpy(line, "root=", 5);
    line[sizeof line - 1] = 0;
    CHECK(!parse(line));
    line[5 + 64] = 0;
    CHECK(!parse(line));
    line[5 + 63] = 0;
    CHECK(parse(line) && strlen(config.root) == 63);
    char zero[] = "root=a\0b\n";
    CHECK(!config_parse(&config, zero, sizeof zero - 1, error, sizeof error));
}

int main(void) {
    RUN(a_full_configuration_is_read);
    RUN(an_empty_configuration_is_the_default);
    RUN(more_resolvers_than_resolv_conf_takes_are_skipped);
    RUN(what_does_not_parse_is_named);
    RUN(bounds_hold);
    return 0;
}
