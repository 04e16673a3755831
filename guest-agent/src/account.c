#define _GNU_SOURCE
#include "account.h"

#include <grp.h>
#include <pwd.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "worker.h"

noreturn void fail_command(uint32_t code, const char *what) {
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

void account_find(const char *wanted, struct account *account) {
    const char *rest = "";
    struct passwd *entry;
    bool numeric = parse_id(wanted, ':', &account->uid, &rest);
    bool group_given = numeric && *rest == ':';
    if (group_given && !parse_id(rest + 1, 0, &account->gid, &rest))
        fail_command(FAILURE_UNKNOWN_USER, wanted);
    entry = numeric ? getpwuid(account->uid) : getpwnam(wanted);
    bool is_root = numeric ? account->uid == 0 : strcmp(wanted, "root") == 0;
    if (!entry && !numeric && !is_root)
        fail_command(FAILURE_UNKNOWN_USER, wanted);
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

void account_become(const struct account *account) {
    if (geteuid() != 0 && account->uid == geteuid())
        return;
    if (initgroups(account->name, account->gid) < 0 || setgid(account->gid) < 0 || setuid(account->uid) < 0)
        fail_command((uint32_t)errno, account->name);
}
