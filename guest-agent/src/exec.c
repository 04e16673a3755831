#include "exec.h"

#include "command.h"

void exec_start(struct channel *channel, struct fields request) {
    struct command command = {0};
    struct child_pipes pipes;
    struct failure failure;
    if (!command_parse(&command, request)) {
        channel_end_text(channel, FAILURE_BAD_REQUEST, "malformed fields");
        return;
    }
    pid_t pid = command_start(&command, &pipes, &failure);
    if (pid < 0) {
        channel_end_text(channel, failure.code, "%s", failure.text);
        return;
    }
    channel->pid = pid;
    channel->command = true;
    channel->pty = command.flags & COMMAND_PTY;
    child_pipes_adopt(&pipes, channel);
}
