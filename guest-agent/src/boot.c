#define _GNU_SOURCE
#include "boot.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "agent.h"
#include "disks.h"
#include "files.h"
#include "modules.h"
#include "net.h"
#include "place.h"
#include "resident.h"
#include "trace.h"
#include "uevents.h"

enum { CONFIG_MAX = 16384, READY_WAIT_MS = 200 };

#define NEW_ROOT "/newroot"
#define VSOCK_MODULES "vsock" // in the names of all three
#define AGENT_NAME "@banger-agent"

// Static because a resident PID 1 starts an agent again from them.
static struct config config;
static struct stages stages;
static struct transport transport;
static enum agent_mode mode;
static int go_pipe[2] = {-1, -1}; // the agent reads its end; PID 1 holds the other until commands may run
static char *title; // the memory of argv and the environment, which ps(1) reads
static size_t title_size;

static noreturn void give_up(const char *why) {
    log_error("cannot boot: %s", why);
    sync();
    // Not a power-off: a reset ends QEMU (-no-reboot) and Firecracker, which knows no power-off, alike.
    reboot(RB_AUTOBOOT);
    for (;;)
        pause();
}

static void mount_or_log(const char *type, const char *target, unsigned long flags, const char *options) {
    if (mkdir(target, 0755) < 0 && errno != EEXIST)
        log_error("mkdir %s: %s", target, strerror(errno));
    if (mount(type, target, type, flags, options) < 0 && errno != EBUSY)
        log_error("mount %s: %s", target, strerror(errno));
}

// A kernel whose initramfs has no /dev/console starts its init with 0–2 closed; the next open would become "stdin".
static void open_console(void) {
    int fd = open("/dev/console", O_RDWR | O_NOCTTY);
    if (fd < 0)
        fd = open("/dev/null", O_RDWR);
    for (int i = 0; fd >= 0 && i < 3; i++)
        if (fd != i)
            dup2(fd, i);
    if (fd > 2)
        close(fd);
}

static void read_config(void) {
    static char text[CONFIG_MAX];
    char line[256];
    int fd = open("/banger/config", O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? 0 : read(fd, text, sizeof text);
    if (fd >= 0)
        close(fd);
    if (size == (ssize_t)sizeof text)
        give_up("the configuration is too long");
    if (!config_parse(&config, text, size > 0 ? (size_t)size : 0, line, sizeof line)) {
        log_error("configuration: %s", line);
        give_up("the configuration does not parse");
    }
}

static bool may_be_reached_by(enum channel_kind kind) {
    for (int i = 0; i < config.channel_count; i++)
        if (config.channels[i].kind == kind)
            return true;
    return false;
}

// Loads what the agent needs for its first answer: a driver that no channel is for would only take time.
// The directory of the others, which wait until then, or -1: there is none.
static int load_modules(void) {
    int early = open("/modules", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int late = open("/modules/late", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool console = config.channel_count == 0 || may_be_reached_by(CHANNEL_VIRTIO_SERIAL);
    if (early >= 0) {
        modules_load(early, NULL, console ? NULL : "virtio_console");
        close(early);
    }
    if (late >= 0 && may_be_reached_by(CHANNEL_VSOCK))
        modules_load(late, VSOCK_MODULES, NULL);
    return late;
}

static void mount_root(int uevents) {
    char device[128];
    mkdir(NEW_ROOT, 0755);
    if (!disk_find(config.root, uevents, device, sizeof device) || !disk_mount(device, NEW_ROOT, 0))
        give_up("no root file system");
    const char *const kept[] = {"/dev", "/proc", "/sys"};
    for (int i = 0; i < 3; i++) {
        char target[64];
        snprintf(target, sizeof target, NEW_ROOT "%s", kept[i]);
        if ((mkdir(target, 0755) < 0 && errno != EEXIST) || mount(kept[i], target, NULL, MS_MOVE, NULL) < 0)
            log_error("move %s: %s", kept[i], strerror(errno));
    }
    if (chdir(NEW_ROOT) < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 || chdir("/") < 0)
        give_up("cannot switch to the root file system");
}

static void mount_work(int uevents) {
    char device[128];
    if (!*config.work)
        return;
    mkdir("/root", 0700);
    // Without it the user's files would go to the wrong disk.
    if (!disk_find(config.work, uevents, device, sizeof device) || !disk_mount(device, "/root", 0))
        give_up("no work disk");
}

static void mount_modules(int uevents) {
    char device[128], target[PATH_MAX];
    struct utsname kernel;
    struct failure failure;
    if (!*config.modules)
        return;
    uname(&kernel);
    snprintf(target, sizeof target, "/lib/modules/%s", kernel.release);
    if (make_directories(target, &failure) == 0 && disk_find(config.modules, uevents, device, sizeof device))
        disk_mount(device, target, MS_RDONLY);
}

// systemd-tmpfiles empties /tmp (tmp.conf: D) seconds after the agent has taken its first command, and with it what that command keeps there.
static void spare_tmp(void) {
    static const char rule[] = "q /tmp 1777 root root 10d\n";
    mkdir("/run/tmpfiles.d", 0755);
    int fd = open("/run/tmpfiles.d/tmp.conf", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0 || write(fd, rule, sizeof rule - 1) < 0)
        log_error("/run/tmpfiles.d/tmp.conf: %s", strerror(errno));
    if (fd >= 0)
        close(fd);
}

// All of it stays as it is when systemd or OpenRC find it: both look before they mount. cgroup2 is not among it: systemd chooses that itself.
static void mount_runtime(void) {
    mount_or_log("tmpfs", "/run", MS_NOSUID | MS_NODEV | MS_STRICTATIME, "mode=0755");
    mount_or_log("devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "gid=5,mode=620,ptmxmode=000");
    mount_or_log("tmpfs", "/dev/shm", MS_NOSUID | MS_NODEV, "mode=1777");
    const char *const links[][2] = {
        {"/proc/self/fd", "/dev/fd"}, {"/proc/self/fd/0", "/dev/stdin"}, {"/proc/self/fd/1", "/dev/stdout"}, {"/proc/self/fd/2", "/dev/stderr"}};
    for (int i = 0; i < 4; i++)
        if (symlink(links[i][0], links[i][1]) < 0 && errno != EEXIST)
            log_error("%s: %s", links[i][1], strerror(errno));
    spare_tmp();
}

// Busybox as /sbin/init without OpenRC or an rcS is what a container's Alpine has: it would only start getty on terminals that are not there.
static bool is_bare_busybox(const char *path) {
    char real[PATH_MAX];
    if (!realpath(path, real) || strcmp(strrchr(real, '/'), "/busybox") != 0)
        return false;
    return access("/sbin/openrc", X_OK) < 0 && access("/etc/init.d/rcS", X_OK) < 0;
}

// NULL: resident
static const char *choose_init(void) {
    static const char *const candidates[] = {"/sbin/init", "/lib/systemd/systemd", "/usr/lib/systemd/systemd", "/etc/init"};
    if (strcmp(config.init, "none") == 0)
        return NULL;
    if (strcmp(config.init, "auto") != 0) {
        if (access(config.init, X_OK) == 0)
            return config.init;
        log_error("init %s: %s", config.init, strerror(errno));
        return NULL;
    }
    for (size_t i = 0; i < sizeof candidates / sizeof *candidates; i++)
        if (access(candidates[i], X_OK) == 0 && !is_bare_busybox(candidates[i]))
            return candidates[i];
    return NULL;
}

// systemd(1) spares processes whose argv[0] begins with '@' until the end. The kernel shows what is in the memory that argv began in, and
// reads on into the environment's when the last byte of argv is not 0 (proc_pid_cmdline): no exec is needed for a new name.
static void take_title(void) {
    if (title_size > sizeof AGENT_NAME) {
        memset(title, 0, title_size);
        memcpy(title, AGENT_NAME, sizeof AGENT_NAME);
    }
    prctl(PR_SET_NAME, "banger-agent");
}

static void detach_from_console(void) {
    int fd = open("/dev/null", O_RDWR);
    for (int i = 0; fd >= 0 && i < 3; i++)
        dup2(fd, i);
    if (fd > 2)
        close(fd);
    setsid();
}

static void forbid_oom_kill(void) {
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    if (write(fd, "-1000", 5) < 0)
        log_error("oom_score_adj: %s", strerror(errno));
    close(fd);
}

// PID 1 goes on when the agent has answered whatever was waiting: on one processor init would otherwise win the race for it.
static pid_t start_agent(void) {
    int ready[2];
    if (pipe2(ready, O_CLOEXEC) < 0)
        ready[0] = ready[1] = -1;
    pid_t pid = fork();
    if (pid == 0) {
        close(ready[0]);
        if (go_pipe[1] >= 0)
            close(go_pipe[1]);
        take_title();
        detach_from_console();
        forbid_oom_kill();
        agent_run(&(struct agent_options){.mode = mode, .transport = &transport, .stages = &stages, .ready_fd = ready[1], .go_fd = go_pipe[0]});
    }
    if (pid < 0)
        log_error("fork: %s", strerror(errno));
    close(ready[1]);
    struct pollfd wait = {.fd = ready[0], .events = POLLIN};
    poll(&wait, 1, READY_WAIT_MS);
    close(ready[0]);
    return pid;
}

static pid_t start_agent_again(void) {
    // The dead one's port was closed with it.
    transport_init(&transport, config.channels, config.channel_count);
    pid_t pid = start_agent();
    transport_close(&transport);
    return pid;
}

// In a child, after ready: the kernel initialises block groups while the guest is already in use.
static void start_growing(void) {
    if (!config.grow || fork() != 0)
        return;
    disk_grow("/");
    if (*config.work)
        disk_grow("/root");
    _exit(0);
}

// What the agent's first answer need not wait for, but commands do. Nothing in it can fail the boot.
static void finish_late(int files, int late_modules, int uevents) {
    mount_runtime();
    if (mode == MODE_RESIDENT)
        resident_mount();
    if (files >= 0) {
        place_files(files);
        close(files);
    }
    place_identity(&config);
    if (late_modules >= 0) {
        modules_load(late_modules, NULL, may_be_reached_by(CHANNEL_VSOCK) ? VSOCK_MODULES : NULL);
        close(late_modules);
    }
    net_up(&config, uevents);
    mount_modules(uevents);
    close(uevents);
    uint8_t decided = (uint8_t)mode;
    if (go_pipe[1] >= 0 && write(go_pipe[1], &decided, 1) < 0)
        log_error("the agent cannot be told to go on: %s", strerror(errno));
    for (int i = 0; i < 2; i++) {
        if (go_pipe[i] >= 0)
            close(go_pipe[i]);
        go_pipe[i] = -1;
    }
}

static noreturn void hand_over(const char *init, char **argv, char **environment) {
    argv[0] = (char *)init;
    execve(init, argv, environment);
    log_error("%s: %s", init, strerror(errno));
    give_up("the distribution's init does not start");
}

static int prepare_root(int uevents) {
    int initramfs = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (*config.root) {
        mount_root(uevents);
    } else if (initramfs >= 0) {
        close(initramfs); // this is the root: nothing to free
        initramfs = -1;
    }
    stage_reached(&stages, "root");
    mount_work(uevents);
    stage_reached(&stages, "work");
    return initramfs;
}

noreturn void boot(int argc, char **argv, char **environment) {
    stage_reached(&stages, "init");
    title = argv[0];
    char *title_end = title;
    for (int i = 0; i < argc; i++)
        title_end = argv[i] + strlen(argv[i]) + 1;
    for (char **variable = environment; *variable; variable++)
        if (*variable == title_end)
            title_end += strlen(*variable) + 1;
    title_size = (size_t)(title_end - title);

    umask(0);
    mount_or_log("proc", "/proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    mount_or_log("sysfs", "/sys", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    mount_or_log("devtmpfs", "/dev", MS_NOSUID, "mode=0755");
    open_console();
    read_config();
    int uevents = uevents_open(); // before the modules: what they make is announced once
    int late_modules = load_modules();
    stage_reached(&stages, "modules");
    // Now, so that the host's HELLO travels while the root is mounted. The agent inherits the port; PID 1 closes it.
    transport_init(&transport, config.channels, config.channel_count);
    transport_try(&transport);

    int files = open("/banger/files", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int initramfs = prepare_root(uevents);
    if (pipe2(go_pipe, O_CLOEXEC) < 0)
        go_pipe[0] = go_pipe[1] = -1;
    umask(022); // the agent's, and so that of commands
    pid_t agent = start_agent();
    transport_close(&transport);
    umask(0);
    const char *init = choose_init(); // now: looking for it reads half a dozen directories from the disk
    mode = init ? MODE_HANDOVER : MODE_RESIDENT;
    finish_late(files, late_modules, uevents);
    umask(022);
    if (initramfs >= 0)
        remove_tree(initramfs);
    start_growing();
    if (!init)
        resident_run(agent, start_agent_again);
    hand_over(init, argv, environment);
}
