#define _GNU_SOURCE
#include "exec.h"

#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "worker.h"

enum { EXEC_PTY = 1, EXEC_STDIN = 2, EXEC_MERGE = 4 };
enum { ARGUMENTS_MAX = FRAME_PAYLOAD_MAX / FIELD_HEADER, BASE_ENVIRONMENT = 8, TTY_GROUP = 5 };

#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

struct command {
    struct fields request;
    uint64_t flags;
    uint64_t rows;
    uint64_t columns;
};

struct account {
    uid_t uid;
    gid_t gid;
    char name[256];
    char home[1024];
    char shell[1024];
};

static bool parse_command(struct command *command, struct fields request) {
    struct field field;
    uint64_t *numbers[] = {[5] = &command->flags, [6] = &command->rows, [7] = &command->columns};
    command->request = request;
    while (fields_next(&request, &field))
        if (field.tag >= 5 && field.tag <= 7 && !field_number(&field, numbers[field.tag]))
            return false;
    return !request.malformed;
}

// In the child. Text fields become C strings in one arena: each lost a field header, so they always fit.
static char arena[FRAME_PAYLOAD_MAX];
static size_t arena_used;

static char *keep(const struct field *field) {
    char *text = arena + arena_used;
    if (!field_text(field, text, sizeof arena - arena_used))
        report_failure(&(struct failure){FAILURE_BAD_REQUEST, "a text holds a NUL byte"});
    arena_used += field->length + 1;
    return text;
}

static noreturn void fail(uint32_t code, const char *what) {
    struct failure failure;
    failure_set(&failure, code, "%s: %s", what, code < 1000 ? strerror((int)code) : "unknown user or group");
    report_failure(&failure);
}

static bool parse_id(const char *text, char end, uint32_t *id, const char **rest) {
    char *after;
    if (*text < '0' || *text > '9')
        return false;
    errno = 0;
    unsigned long value = strtoul(text, &after, 10);
    if (errno || value >= UINT32_MAX || (*after && *after != end))
        return false;
    *id = (uint32_t)value;
    *rest = after;
    return true;
}

// A name, or uid[:gid]. A uid without an account is welcome: containers have such.
static void find_account(const char *wanted, struct account *account) {
    const char *rest = "";
    struct passwd *entry;
    bool numeric = parse_id(wanted, ':', &account->uid, &rest);
    bool group_given = numeric && *rest == ':';
    if (group_given && !parse_id(rest + 1, 0, &account->gid, &rest))
        fail(FAILURE_UNKNOWN_USER, wanted);
    entry = numeric ? getpwuid(account->uid) : getpwnam(wanted);
    bool is_root = numeric ? account->uid == 0 : strcmp(wanted, "root") == 0;
    if (!entry && !numeric && !is_root)
        fail(FAILURE_UNKNOWN_USER, wanted);
    if (entry) {
        account->uid = entry->pw_uid;
        if (!group_given)
            account->gid = entry->pw_gid;
    } else if (!group_given) {
        account->gid = account->uid;
    }
    const char *shell = entry && *entry->pw_shell ? entry->pw_shell : "/bin/sh";
    const char *home = entry && *entry->pw_dir ? entry->pw_dir : is_root ? "/root" : "/";
    snprintf(account->name, sizeof account->name, "%s", entry ? entry->pw_name : is_root ? "root" : wanted);
    snprintf(account->home, sizeof account->home, "%s", home);
    snprintf(account->shell, sizeof account->shell, "%s", shell);
}

static void become(const struct account *account) {
    if (geteuid() != 0 && account->uid == geteuid())
        return;
    if (initgroups(account->name, account->gid) < 0 || setgid(account->gid) < 0 || setuid(account->uid) < 0)
        fail((uint32_t)errno, account->name);
}

static bool same_key(const char *a, const char *b) {
    size_t key = strcspn(a, "=");
    return strncmp(a, b, key + 1) == 0;
}

// The request's variables win over the account's of the same name, and its later ones over its earlier ones.
static void add_variable(char **environment, size_t *count, char *variable) {
    for (size_t i = 0; i < *count; i++) {
        if (same_key(environment[i], variable)) {
            environment[i] = variable;
            return;
        }
    }
    environment[(*count)++] = variable;
}

static size_t base_environment(char **environment, const struct account *account, bool terminal) {
    static char home[1100], user[300], logname[300], shell[1100];
    size_t count = 0;
    snprintf(home, sizeof home, "HOME=%s", account->home);
    snprintf(user, sizeof user, "USER=%s", account->name);
    snprintf(logname, sizeof logname, "LOGNAME=%s", account->name);
    snprintf(shell, sizeof shell, "SHELL=%s", account->shell);
    environment[count++] = (char *)"PATH=" DEFAULT_PATH;
    environment[count++] = home;
    environment[count++] = user;
    environment[count++] = logname;
    environment[count++] = shell;
    environment[count++] = (char *)"LANG=C.UTF-8";
    if (terminal)
        environment[count++] = (char *)"TERM=xterm-256color";
    return count;
}

static const char *variable_of(char **environment, const char *key) {
    size_t length = strlen(key);
    for (; *environment; environment++)
        if (strncmp(*environment, key, length) == 0 && (*environment)[length] == '=')
            return *environment + length + 1;
    return NULL;
}

// execvpe(3) would search our own PATH, not the command's, and would try /bin/sh on ENOEXEC.
static int execute(char **arguments, char **environment) {
    char path[4352];
    if (strchr(arguments[0], '/')) {
        execve(arguments[0], arguments, environment);
        return errno;
    }
    const char *at = variable_of(environment, "PATH");
    int error = ENOENT;
    for (at = at ? at : DEFAULT_PATH; *arguments[0];) {
        size_t length = strcspn(at, ":");
        if (length + strlen(arguments[0]) + 3 <= sizeof path) {
            snprintf(path, sizeof path, "%.*s%s%s", (int)length, at, length ? "/" : "./", arguments[0]);
            execve(path, arguments, environment);
            // A later directory may have it, but "permission denied" says more than "not found".
            if (errno != ENOENT && errno != ENOTDIR && errno != EACCES)
                return errno;
            if (errno == EACCES)
                error = EACCES;
        }
        if (!at[length])
            break;
        at += length + 1;
    }
    return error;
}

static void reset_oom_score(void) {
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    if (write(fd, "0", 1) < 0) {
        // Kept: the command then is a little less likely to be killed.
    }
    close(fd);
}

static noreturn void run_command(const struct command *command, int terminal) {
    static char *arguments[ARGUMENTS_MAX + 1];
    static char *environment[ARGUMENTS_MAX + BASE_ENVIRONMENT + 1];
    static char *extra[ARGUMENTS_MAX + 1];
    size_t argument_count = 0, variable_count, extra_count = 0;
    const char *directory = NULL, *user = "root";
    char own_user[16];
    struct fields request = command->request;
    struct account account = {0};
    struct field field;

    if (geteuid() != 0) { // a test on the host, by an ordinary user
        snprintf(own_user, sizeof own_user, "%u", geteuid());
        user = own_user;
    }
    setsid();
    if (terminal >= 0)
        ioctl(terminal, TIOCSCTTY, 0);
    while (fields_next(&request, &field)) {
        if (field.tag == 1)
            arguments[argument_count++] = keep(&field);
        else if (field.tag == 2)
            extra[extra_count++] = keep(&field);
        else if (field.tag == 3)
            directory = keep(&field);
        else if (field.tag == 4)
            user = keep(&field);
    }
    if (argument_count == 0)
        report_failure(&(struct failure){EINVAL, "argv is missing"});
    find_account(user, &account);
    variable_count = base_environment(environment, &account, terminal >= 0);
    for (size_t i = 0; i < extra_count; i++)
        add_variable(environment, &variable_count, extra[i]);
    reset_oom_score();
    umask(022);
    if (terminal >= 0 && fchown(terminal, account.uid, TTY_GROUP) < 0) {
        // devpts gave it to root: the command still has it open.
    }
    become(&account);
    if (chdir(directory ? directory : account.home) < 0) {
        if (directory)
            fail((uint32_t)errno, directory);
        if (chdir("/") < 0)
            fail((uint32_t)errno, "/");
    }
    fail((uint32_t)execute(arguments, environment), arguments[0]);
}

static int open_terminal(struct child_pipes *pipes, const struct command *command) {
    struct winsize size = {.ws_row = (uint16_t)command->rows, .ws_col = (uint16_t)command->columns};
    int unlocked = 0;
    int master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
    if (master < 0)
        return -1;
    ioctl(master, TIOCSPTLCK, &unlocked);
    // By TIOCGPTPEER and not by name: it works whatever is mounted on /dev/pts by then.
    int slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (slave < 0) {
        close(master);
        return -1;
    }
    ioctl(slave, TIOCSWINSZ, &size);
    pipes->parent[1] = master;
    pipes->parent[0] = fcntl(master, F_DUPFD_CLOEXEC, 3);
    pipes->child[0] = slave;
    pipes->child[1] = fcntl(slave, F_DUPFD_CLOEXEC, 3);
    pipes->child[2] = fcntl(slave, F_DUPFD_CLOEXEC, 3);
    return 0;
}

void exec_start(struct channel *channel, struct fields request) {
    struct command command = {.rows = 24, .columns = 80};
    struct child_pipes pipes;
    if (!parse_command(&command, request)) {
        channel_end_text(channel, FAILURE_BAD_REQUEST, "malformed fields");
        return;
    }
    bool terminal = command.flags & EXEC_PTY;
    int streams = terminal ? 0 : 1 << 1 | (command.flags & EXEC_STDIN ? 1 << 0 : 0) | (command.flags & EXEC_MERGE ? 0 : 1 << 2);
    bool opened = child_pipes_open(&pipes, streams) == 0;
    if (!opened || (terminal && open_terminal(&pipes, &command) < 0)) {
        channel_end_text(channel, (uint32_t)errno, "%s: %s", opened ? "/dev/ptmx" : "pipe", strerror(errno));
        if (opened)
            child_pipes_close(&pipes);
        return;
    }
    pid_t pid = fork();
    if (pid == 0) {
        child_pipes_enter(&pipes);
        if (command.flags & EXEC_MERGE && !terminal)
            dup2(1, 2);
        run_command(&command, terminal ? 0 : -1);
    }
    if (pid < 0) {
        channel_end_text(channel, (uint32_t)errno, "fork: %s", strerror(errno));
        child_pipes_close(&pipes);
        return;
    }
    channel->pid = pid;
    channel->command = true;
    channel->pty = terminal;
    child_pipes_adopt(&pipes, channel);
}
