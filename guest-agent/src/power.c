#define _GNU_SOURCE
#include "power.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "trace.h"

// systemd(1) speaks of SIGRTMIN+4 and +5, where SIGRTMIN is glibc's 34. musl's is 35, so that the macro would be wrong here.
enum { SYSTEMD_POWER_OFF = 34 + 4, SYSTEMD_REBOOT = 34 + 5 };
enum { TERM_WAIT_MS = 1000, KILL_WAIT_MS = 500, REMOUNT_TRIES = 60, STEP_MS = 10 };

static void sleep_ms(int ms) { nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000L}, NULL); }

static bool read_small(const char *path, char *text, size_t size) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t got = read(fd, text, size - 1);
    close(fd);
    text[got > 0 ? got : 0] = 0;
    return got > 0;
}

// PID 1 is immune to signals that it neither catches nor blocks (signalfd): such a request would be lost. One that sits in
// sigtimedwait(2), as busybox does, looks the same from outside, because the kernel unblocks what it waits for.
static bool init_handles(int signal) {
    char status[4096];
    if (!read_small("/proc/1/status", status, sizeof status))
        return true;
    uint64_t handled = 0;
    const char *const keys[] = {"\nSigBlk:", "\nSigCgt:"};
    for (int i = 0; i < 2; i++) {
        const char *at = strstr(status, keys[i]);
        if (at)
            handled |= strtoull(at + strlen(keys[i]), NULL, 16);
    }
    return handled >> (signal - 1) & 1;
}

// So it is sent in any case, and again until it is seen to be handled: neither init minds a second one.
static enum power_answer signal_init(int signal) {
    bool handled = init_handles(signal);
    if (kill(1, signal) < 0)
        return POWER_NOBODY;
    return handled ? POWER_ASKED : POWER_NOT_YET;
}

// The request of sysvinit's telinit(8), see its initreq.h.
static enum power_answer ask_sysvinit(const char *fifo, char runlevel) {
    struct {
        int32_t magic, command, runlevel, sleep_time;
        char unused[368];
    } request = {.magic = 0x03091969, .command = 1, .runlevel = runlevel, .sleep_time = 5};
    int fd = open(fifo, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return POWER_NOT_YET;
    bool sent = write(fd, &request, sizeof request) == sizeof request;
    close(fd);
    return sent ? POWER_ASKED : POWER_NOT_YET;
}

static enum power_answer run_program(const char *path, char *const arguments[]) {
    pid_t pid = fork();
    if (pid == 0) {
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        setsid();
        execve(path, arguments, (char *[]){(char *)"PATH=/usr/sbin:/usr/bin:/sbin:/bin", NULL});
        _exit(127);
    }
    return pid > 0 ? POWER_ASKED : POWER_NOBODY;
}

static bool is_fifo(const char *path) {
    struct stat status;
    return stat(path, &status) == 0 && S_ISFIFO(status.st_mode);
}

enum power_answer power_ask(enum power power, bool resident) {
    bool off = power == POWER_OFF;
    char program[256];
    if (resident)
        return kill(1, off ? SIGUSR2 : SIGTERM) == 0 ? POWER_ASKED : POWER_NOBODY;
    ssize_t size = readlink("/proc/1/exe", program, sizeof program - 1);
    program[size > 0 ? size : 0] = 0;
    const char *name = strrchr(program, '/') ? strrchr(program, '/') + 1 : program;
    if (access("/run/systemd/system", F_OK) == 0 || strcmp(name, "systemd") == 0)
        return signal_init(off ? SYSTEMD_POWER_OFF : SYSTEMD_REBOOT);
    if (strcmp(name, "busybox") == 0)
        return signal_init(off ? SIGUSR2 : SIGTERM);
    if (strcmp(name, "openrc-init") == 0)
        return run_program("/sbin/openrc-shutdown",
                           (char *[]){(char *)"openrc-shutdown", (char *)(off ? "-p" : "-r"), (char *)"now", NULL});
    if (strncmp(name, "runit", 5) == 0)
        return run_program("/sbin/runit-init", (char *[]){(char *)"runit-init", (char *)(off ? "0" : "6"), NULL});
    const char *fifo = is_fifo("/run/initctl") ? "/run/initctl" : "/dev/initctl";
    if (is_fifo(fifo))
        return ask_sysvinit(fifo, off ? '0' : '6');
    return POWER_NOBODY;
}

// Without us and PID 1. Kernel threads are the children of kthreadd (2); the dead do not count.
static int living_processes(void) {
    DIR *processes = opendir("/proc");
    struct dirent *entry;
    int living = 0;
    while (processes && (entry = readdir(processes))) {
        char path[64], status[512];
        long pid = strtol(entry->d_name, NULL, 10);
        if (pid <= 2 || pid == getpid())
            continue;
        snprintf(path, sizeof path, "/proc/%ld/stat", pid);
        const char *after = read_small(path, status, sizeof status) ? strrchr(status, ')') : NULL;
        if (after && after[1] == ' ' && after[2] != 'Z' && strtol(after + 4, NULL, 10) != 2)
            living++;
    }
    if (processes)
        closedir(processes);
    return living;
}

static void signal_everyone(int signal, int wait_ms) {
    kill(-1, signal);
    kill(-1, SIGCONT); // a stopped process takes no SIGTERM
    for (int waited = 0; waited < wait_ms; waited += STEP_MS) {
        while (waitpid(-1, NULL, WNOHANG) > 0) {
        }
        if (living_processes() == 0)
            return;
        sleep_ms(STEP_MS);
    }
}

// Mount points are in mount order, so that the last is the innermost. Returns how many file systems on disks are still writable.
static int make_clean_once(void) {
    static char text[65536];
    char *lines[256];
    int count = 0, dirty = 0;
    int fd = open("/proc/self/mounts", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 1;
    size_t length = 0;
    for (ssize_t got; length < sizeof text - 1 && (got = read(fd, text + length, sizeof text - 1 - length)) > 0;)
        length += (size_t)got;
    close(fd);
    text[length] = 0;
    for (char *rest, *line = strtok_r(text, "\n", &rest); line && count < 256; line = strtok_r(NULL, "\n", &rest))
        lines[count++] = line;
    while (count-- > 0) {
        char *rest, *source = strtok_r(lines[count], " ", &rest), *target = strtok_r(NULL, " ", &rest);
        char *type = strtok_r(NULL, " ", &rest), *options = strtok_r(NULL, " ", &rest);
        bool on_disk = options && (strncmp(source, "/dev/", 5) == 0 || strcmp(type, "overlay") == 0);
        if (!on_disk || (strncmp(options, "ro", 2) == 0 && (options[2] == ',' || options[2] == 0)))
            continue;
        if (strcmp(target, "/") != 0 && umount2(target, 0) == 0)
            continue;
        if (mount(NULL, target, NULL, MS_REMOUNT | MS_RDONLY, NULL) < 0)
            dirty++;
    }
    return dirty;
}

// One try is not enough: the files of a killed process are closed some time after the signal.
static void make_clean(void) {
    for (int i = 0; i < REMOUNT_TRIES; i++) {
        sync();
        if (make_clean_once() == 0)
            return;
        kill(-1, SIGKILL); // an init in distress may have started something new
        sleep_ms(STEP_MS * 5);
    }
    log_error("file systems stay busy, asking the kernel to remount them");
    int fd = open("/proc/sysrq-trigger", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    if (write(fd, "u", 1) == 1)
        sleep_ms(500); // emergency_remount() runs in a kernel worker and tells nobody when it is done
    close(fd);
}

noreturn void power_force(enum power power) {
    sync();
    signal_everyone(SIGTERM, TERM_WAIT_MS);
    signal_everyone(SIGKILL, KILL_WAIT_MS);
    make_clean();
    reboot(power == POWER_OFF ? RB_POWER_OFF : RB_AUTOBOOT);
    for (;;)
        pause();
}
