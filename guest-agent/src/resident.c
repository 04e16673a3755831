#define _GNU_SOURCE
#include "resident.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "power.h"
#include "trace.h"

enum { BACKOFF_FIRST_US = 250000, BACKOFF_LAST_US = 30000000, STEADY_US = 10000000 };

#define SSHD "/usr/sbin/sshd"

struct service {
    pid_t pid;
    uint64_t started_us;
    uint64_t restart_at_us; // 0: not due
    uint64_t backoff_us;
};

static void mount_over(const char *type, const char *target, mode_t mode, unsigned long flags, const char *options) {
    if (mkdir(target, mode) < 0 && errno != EEXIST)
        return;
    mount(type, target, type, flags, options);
}

void resident_mount(void) {
    mount_over("tmpfs", "/tmp", 01777, MS_NOSUID | MS_NODEV, "mode=1777");
    mount_over("cgroup2", "/sys/fs/cgroup", 0755, MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    mkdir("/run/lock", 0755);
}

static void start_sshd(struct service *sshd) {
    sshd->restart_at_us = 0;
    sshd->started_us = uptime_us();
    mkdir("/run/sshd", 0755);
    sshd->pid = fork();
    if (sshd->pid == 0) {
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        setsid();
        char *arguments[] = {(char *)SSHD, (char *)"-D", (char *)"-e", NULL};
        char *environment[] = {(char *)"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", (char *)"LANG=C.UTF-8", NULL};
        execve(SSHD, arguments, environment);
        _exit(127);
    }
}

static void sshd_died(struct service *sshd) {
    uint64_t now = uptime_us();
    if (now - sshd->started_us > STEADY_US || !sshd->backoff_us)
        sshd->backoff_us = BACKOFF_FIRST_US;
    else if (sshd->backoff_us < BACKOFF_LAST_US)
        sshd->backoff_us *= 2;
    sshd->restart_at_us = now + sshd->backoff_us;
}

static void reap(struct service *sshd, pid_t *agent, pid_t (*start_agent)(void)) {
    pid_t pid;
    while ((pid = waitpid(-1, NULL, WNOHANG)) > 0) {
        if (pid == sshd->pid) {
            sshd_died(sshd);
        } else if (pid == *agent) {
            log_error("the agent died, starting another");
            nanosleep(&(struct timespec){0, 100000000}, NULL);
            *agent = start_agent();
        }
    }
}

noreturn void resident_run(pid_t agent, pid_t (*start_agent)(void)) {
    struct service sshd = {0};
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    reboot(RB_DISABLE_CAD); // Ctrl-Alt-Del comes as SIGINT instead of an unclean reset
    if (access(SSHD, X_OK) == 0)
        start_sshd(&sshd);
    for (;;) {
        uint64_t now = uptime_us();
        uint64_t wait = sshd.restart_at_us > now ? sshd.restart_at_us - now : 0;
        struct timespec timeout = {(time_t)(wait / 1000000), (long)(wait % 1000000 * 1000)};
        // Once round without waiting for whatever died before the signals were blocked.
        reap(&sshd, &agent, start_agent);
        switch (sigtimedwait(&all, NULL, sshd.restart_at_us ? &timeout : NULL)) {
        case SIGUSR1: // busybox halt
        case SIGUSR2: // busybox poweroff
        case SIGPWR:
            power_force(POWER_OFF);
        case SIGTERM: // busybox reboot
        case SIGINT:
            power_force(POWER_REBOOT);
        default:
            break;
        }
        if (sshd.restart_at_us && uptime_us() >= sshd.restart_at_us)
            start_sshd(&sshd);
    }
}
