#define _GNU_SOURCE
#include "command.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "account.h"

enum { ARGUMENTS_MAX = FRAME_PAYLOAD_MAX / FIELD_HEADER, BASE_ENVIRONMENT = 8, TTY_GROUP = 5, ROWS = 24, COLUMNS = 80 };

#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

bool command_parse(struct command *command, struct fields request) {
    struct field field;
    uint64_t *numbers[] = {[5] = &command->flags, [6] = &command->rows, [7] = &command->columns};
    command->request = request;
    command->rows = ROWS;
    command->columns = COLUMNS;
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

// The paths that a command's name may mean, one after another: itself when it has a slash, else one for each directory of the
// PATH. execvpe(3) would search our own PATH, not the command's, and would try /bin/sh on ENOEXEC.
struct candidates {
    const char *name;
    const char *at; // the rest of PATH; NULL: no more
    char path[4352];
};

static struct candidates candidates_of(const char *name, char **environment) {
    const char *path = variable_of(environment, "PATH");
    return (struct candidates){.name = name, .at = *name ? path ? path : DEFAULT_PATH : NULL};
}

static const char *candidates_next(struct candidates *each) {
    if (each->at && strchr(each->name, '/')) {
        each->at = NULL;
        return each->name;
    }
    while (each->at) {
        const char *directory = each->at;
        size_t length = strcspn(directory, ":");
        each->at = directory[length] ? directory + length + 1 : NULL;
        if (length + strlen(each->name) + 3 > sizeof each->path)
            continue;
        snprintf(each->path, sizeof each->path, "%.*s%s%s", (int)length, directory, length ? "/" : "./", each->name);
        return each->path;
    }
    return NULL;
}

static int execute(char **arguments, char **environment) {
    struct candidates each = candidates_of(arguments[0], environment);
    int error = ENOENT;
    for (const char *path; (path = candidates_next(&each));) {
        execve(path, arguments, environment);
        // A later directory may have it, but "permission denied" says more than "not found".
        if (path == arguments[0] || (errno != ENOENT && errno != ENOTDIR && errno != EACCES))
            return errno;
        if (errno == EACCES)
            error = EACCES;
    }
    return error;
}

static bool is_found(const char *name, char **environment) {
    struct candidates each = candidates_of(name, environment);
    struct stat state;
    for (const char *path; (path = candidates_next(&each));)
        if (stat(path, &state) == 0 && S_ISREG(state.st_mode) && access(path, X_OK) == 0)
            return true;
    return false;
}

// As the command's user, in its directory: what it could not run is missing.
static void require_commands(const struct command *command, char **environment) {
    struct failure failure = {0};
    struct fields request = command->request;
    struct field field;
    size_t length = 0;
    while (command->required_tag && fields_next(&request, &field)) {
        if (field.tag != command->required_tag)
            continue;
        const char *name = keep(&field);
        if (is_found(name, environment))
            continue;
        failure.code = FAILURE_MISSING_COMMAND;
        int more = snprintf(failure.text + length, sizeof failure.text - length, "%s%s", length ? ", " : "", name);
        length = length + (size_t)more < sizeof failure.text ? length + (size_t)more : sizeof failure.text - 1;
    }
    if (failure.code)
        report_failure(&failure);
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
    account_find(user, &account);
    variable_count = base_environment(environment, &account, terminal >= 0);
    for (size_t i = 0; i < extra_count; i++)
        add_variable(environment, &variable_count, extra[i]);
    reset_oom_score();
    umask(022);
    if (terminal >= 0 && fchown(terminal, account.uid, TTY_GROUP) < 0) {
        // devpts gave it to root: the command still has it open.
    }
    account_become(&account);
    if (chdir(directory ? directory : account.home) < 0) {
        if (directory)
            fail_command((uint32_t)errno, directory);
        if (chdir("/") < 0)
            fail_command((uint32_t)errno, "/");
    }
    require_commands(command, environment);
    if (command->dies_with_agent)
        prctl(PR_SET_PDEATHSIG, SIGKILL); // now: a change of the user would have undone it
    fail_command((uint32_t)execute(arguments, environment), arguments[0]);
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

pid_t command_start(const struct command *command, struct child_pipes *pipes, struct failure *failure) {
    bool terminal = command->flags & COMMAND_PTY;
    int streams = terminal ? 0 : 1 << 1 | (command->flags & COMMAND_STDIN ? 1 << 0 : 0) | (command->flags & COMMAND_MERGE ? 0 : 1 << 2);
    bool opened = child_pipes_open(pipes, streams) == 0;
    if (!opened || (terminal && open_terminal(pipes, command) < 0)) {
        failure_set(failure, (uint32_t)errno, "%s: %s", opened ? "/dev/ptmx" : "pipe", strerror(errno));
        if (opened)
            child_pipes_close(pipes);
        return -1;
    }
    pid_t pid = fork();
    if (pid == 0) {
        child_pipes_enter(pipes);
        if (command->flags & COMMAND_MERGE && !terminal)
            dup2(1, 2);
        run_command(command, terminal ? 0 : -1);
    }
    if (pid < 0) {
        failure_set(failure, (uint32_t)errno, "fork: %s", strerror(errno));
        child_pipes_close(pipes);
    }
    return pid;
}
