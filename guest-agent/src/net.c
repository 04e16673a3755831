#include "net.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <net/route.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "trace.h"
#include "uevents.h"

enum { NIC_WAIT_US = 5000000 };

static struct ifreq request_for(const char *name) {
    struct ifreq request = {0};
    snprintf(request.ifr_name, IFNAMSIZ, "%s", name);
    return request;
}

static bool bring_up(int control, const char *name) {
    struct ifreq request = request_for(name);
    if (ioctl(control, SIOCGIFFLAGS, &request) < 0)
        return false;
    request.ifr_flags |= IFF_UP;
    return ioctl(control, SIOCSIFFLAGS, &request) == 0;
}

// "First" is the lowest interface index: the order in which the kernel found them.
static bool find_ethernet(int control, char found[IFNAMSIZ]) {
    int lowest = 0;
    DIR *interfaces = opendir("/sys/class/net");
    struct dirent *entry;
    while (interfaces && (entry = readdir(interfaces))) {
        if (entry->d_name[0] == '.' || strlen(entry->d_name) >= IFNAMSIZ)
            continue;
        struct ifreq hardware = request_for(entry->d_name), index = request_for(entry->d_name);
        if (ioctl(control, SIOCGIFHWADDR, &hardware) < 0 || hardware.ifr_hwaddr.sa_family != ARPHRD_ETHER)
            continue;
        if (ioctl(control, SIOCGIFINDEX, &index) < 0 || (lowest && index.ifr_ifindex > lowest))
            continue;
        lowest = index.ifr_ifindex;
        memcpy(found, entry->d_name, strlen(entry->d_name) + 1);
    }
    if (interfaces)
        closedir(interfaces);
    return lowest;
}

static void put_ipv4(struct sockaddr *where, const uint8_t address[4]) {
    struct sockaddr_in ipv4 = {.sin_family = AF_INET};
    memcpy(&ipv4.sin_addr, address, 4);
    memcpy(where, &ipv4, sizeof ipv4);
}

static bool set_address(int control, const char *name, unsigned long operation, const uint8_t address[4]) {
    struct ifreq request = request_for(name);
    put_ipv4(&request.ifr_addr, address);
    return ioctl(control, operation, &request) == 0;
}

static bool add_route(int control, const char *name, const uint8_t destination[4], const uint8_t mask[4], const uint8_t *gateway) {
    struct rtentry route = {.rt_flags = RTF_UP};
    char device[IFNAMSIZ];
    snprintf(device, sizeof device, "%s", name);
    route.rt_dev = device;
    put_ipv4(&route.rt_dst, destination);
    put_ipv4(&route.rt_genmask, mask);
    if (gateway) {
        route.rt_flags |= RTF_GATEWAY;
        put_ipv4(&route.rt_gateway, gateway);
    }
    return ioctl(control, SIOCADDRT, &route) == 0;
}

static void configure(int control, const char *name, const struct config *config) {
    static const uint8_t any[4], whole[4] = {255, 255, 255, 255};
    uint8_t mask[4];
    uint32_t bits = htonl(config->prefix_length ? UINT32_MAX << (32 - config->prefix_length) : 0);
    memcpy(mask, &bits, 4);
    if (!set_address(control, name, SIOCSIFADDR, config->address) || !set_address(control, name, SIOCSIFNETMASK, mask) ||
        !bring_up(control, name)) {
        log_error("%s: %s", name, strerror(errno));
        return;
    }
    if (!config->has_gateway || add_route(control, name, any, any, config->gateway))
        return;
    // A gateway outside the network (a /32 address) needs a way of its own first.
    if (!add_route(control, name, config->gateway, whole, NULL) || !add_route(control, name, any, any, config->gateway))
        log_error("default route: %s", strerror(errno));
}

void net_up(const struct config *config, int uevents) {
    char name[IFNAMSIZ];
    int control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (control < 0) {
        log_error("socket: %s", strerror(errno));
        return;
    }
    bring_up(control, "lo");
    if (config->has_address) {
        uint64_t deadline = uptime_us() + NIC_WAIT_US;
        bool found;
        while (!(found = find_ethernet(control, name)) && uptime_us() < deadline)
            uevents_wait(uevents, 1000);
        if (found)
            configure(control, name, config);
        else
            log_error("no Ethernet device for the address");
    }
    close(control);
}
