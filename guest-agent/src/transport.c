#define _GNU_SOURCE
#include "transport.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

// After sys/socket.h: kernel headers before 5.16 or so use its types without including them.
#include <linux/vm_sockets.h>

#include "trace.h"

// A knock takes as long as the host needs to look up: a millisecond, and a hundred where it is emulated.
enum { KNOCKS = 7, KNOCK_PAUSE_US = 100000 };

#define PORTS "/sys/class/virtio-ports"

void transport_init(struct transport *transport, const struct channel_place *places, int place_count) {
    *transport = (struct transport){
        .places = places,
        .place_count = place_count,
        .fd = -1,
        .listen_fd = -1,
        .knock_fd = -1,
        .knock_at_us = UINT64_MAX,
        .epoll_fd = epoll_create1(EPOLL_CLOEXEC),
    };
}

bool transport_is_open(const struct transport *transport) { return transport->fd >= 0 || transport->listen_fd >= 0; }

static void watch(struct transport *transport, int fd) {
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.fd = fd};
    epoll_ctl(transport->epoll_fd, EPOLL_CTL_ADD, fd, &event);
}

void transport_adopt(struct transport *transport, int fd) {
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    transport->fd = fd;
    transport->readable = transport->writable = true;
    watch(transport, fd);
}

static void end_knock(struct transport *transport) {
    if (transport->knock_fd >= 0)
        close(transport->knock_fd);
    transport->knock_fd = -1;
}

void transport_close(struct transport *transport) {
    end_knock(transport);
    if (transport->fd >= 0)
        close(transport->fd);
    if (transport->listen_fd >= 0)
        close(transport->listen_fd);
    if (transport->epoll_fd >= 0)
        close(transport->epoll_fd);
    transport->fd = transport->listen_fd = transport->epoll_fd = -1;
}

static bool port_has_name(int ports, const char *port, const char *wanted) {
    char path[300], name[64];
    snprintf(path, sizeof path, "%s/name", port);
    int fd = openat(ports, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t size = read(fd, name, sizeof name - 1);
    close(fd);
    if (size <= 0)
        return false;
    name[size] = 0;
    name[strcspn(name, "\n")] = 0;
    return strcmp(name, wanted) == 0;
}

// By its name in sysfs: the links under /dev/virtio-ports are udev's, and there is none yet.
static int open_port(const char *wanted) {
    DIR *ports = opendir(PORTS);
    struct dirent *entry;
    int fd = -1;
    if (!ports)
        return -1;
    while (fd < 0 && (entry = readdir(ports))) {
        char path[300];
        if (entry->d_name[0] == '.' || !port_has_name(dirfd(ports), entry->d_name, wanted))
            continue;
        snprintf(path, sizeof path, "/dev/%s", entry->d_name);
        fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    }
    closedir(ports);
    return fd;
}

// The socket family exists without a device. Only a device gives the guest an address.
static bool vsock_has_device(void) {
    unsigned int cid = VMADDR_CID_ANY;
    int fd = open("/dev/vsock", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool known = ioctl(fd, IOCTL_VM_SOCKETS_GET_LOCAL_CID, &cid) == 0 && cid != VMADDR_CID_ANY;
    close(fd);
    return known;
}

static int listen_vsock(uint32_t port) {
    struct sockaddr_vm address = {.svm_family = AF_VSOCK, .svm_port = port, .svm_cid = VMADDR_CID_ANY};
    if (!vsock_has_device())
        return -1;
    int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, 4) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

// What becomes of it is told by nobody but the host's own connection. A host that has heard the first one, or a daemon that was
// restarted, refuses: that is as good as any answer.
static int knock(uint32_t port) {
    struct sockaddr_vm address = {.svm_family = AF_VSOCK, .svm_port = port, .svm_cid = VMADDR_CID_HOST};
    int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0)
        connect(fd, (struct sockaddr *)&address, sizeof address);
    return fd;
}

void transport_knock(struct transport *transport, uint64_t now_us) {
    if (now_us < transport->knock_at_us)
        return;
    end_knock(transport);
    transport->knock_at_us = UINT64_MAX;
    if (transport->knocks == KNOCKS)
        return;
    transport->knock_at_us = now_us + ((uint64_t)KNOCK_PAUSE_US << transport->knocks++);
    transport->knock_fd = knock(transport->listen_port);
}

static void start_knocking(struct transport *transport, uint32_t port) {
    transport->listen_port = port;
    transport->knocks = 0;
    transport->knock_at_us = 0;
    transport_knock(transport, uptime_us());
}

static void stop_knocking(struct transport *transport) {
    end_knock(transport);
    transport->knock_at_us = UINT64_MAX;
}

bool transport_try(struct transport *transport) {
    for (int i = 0; i < transport->place_count && !transport_is_open(transport); i++) {
        const struct channel_place *place = &transport->places[i];
        if (place->kind == CHANNEL_VIRTIO_SERIAL) {
            int fd = open_port(place->name);
            if (fd >= 0) {
                transport->is_port = true;
                transport_adopt(transport, fd);
            }
        } else {
            transport->listen_fd = listen_vsock(place->port);
            if (transport->listen_fd >= 0) {
                watch(transport, transport->listen_fd);
                start_knocking(transport, place->port);
            }
        }
    }
    return transport_is_open(transport);
}

// The newest connection wins: after a restart of the host's daemon, or a restored snapshot, the old one may never end.
static bool accept_newest(struct transport *transport) {
    bool accepted = false;
    int fd;
    while ((fd = accept4(transport->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0) {
        if (transport->fd >= 0)
            close(transport->fd);
        transport_adopt(transport, fd);
        accepted = true;
    }
    if (accepted)
        stop_knocking(transport);
    return accepted;
}

bool transport_host_is_absent(const struct transport *transport) {
    struct pollfd slot = {.fd = transport->fd};
    return poll(&slot, 1, 0) == 1 && (slot.revents & POLLHUP);
}

bool transport_take_events(struct transport *transport) {
    struct epoll_event events[4];
    bool anew = false;
    int count = epoll_wait(transport->epoll_fd, events, 4, 0);
    for (int i = 0; i < count; i++) {
        if (events[i].data.fd == transport->listen_fd) {
            anew |= accept_newest(transport);
        } else if (events[i].data.fd == transport->fd) {
            transport->readable |= (events[i].events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
            transport->writable |= (events[i].events & EPOLLOUT) != 0;
            // Told apart from read() == 0 because with a full queue nothing is read.
            transport->hung_up |= transport->is_port && (events[i].events & EPOLLHUP);
        }
    }
    return anew;
}
