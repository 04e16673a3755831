#include "uevents.h"

#include <linux/netlink.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { KERNEL_GROUP = 1, FALLBACK_MS = 2, RECHECK_MS = 50 };

int uevents_open(void) {
    struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = KERNEL_GROUP};
    int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT);
    if (fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

void uevents_wait(int fd, int timeout_ms) {
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    char message[4096];
    // Not every wish has an event of its own, so that nothing is waited for longer than a moment.
    int limit = fd < 0 ? FALLBACK_MS : RECHECK_MS;
    if (poll(&wait, 1, timeout_ms < limit ? timeout_ms : limit) > 0)
        while (recv(fd, message, sizeof message, 0) > 0) {
        }
}
