// Owns: telling the program's lives apart: /init in the initramfs, or an agent for a test on the host (`--agent-fd N`).
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent.h"
#include "boot.h"
#include "trace.h"

static noreturn void run_for_test(int fd) {
    static struct stages stages;
    struct transport transport;
    log_to_stderr();
    transport_init(&transport, NULL, 0);
    transport_adopt(&transport, fd);
    agent_run(&(struct agent_options){.mode = MODE_TEST, .transport = &transport, .stages = &stages, .ready_fd = -1, .go_fd = -1});
}

int main(int argc, char **argv, char **environment) {
    if (argc == 3 && strcmp(argv[1], "--agent-fd") == 0)
        run_for_test(atoi(argv[2]));
    if (getpid() == 1)
        boot(argc, argv, environment);
    fprintf(stderr, "banger-init is a microVM's /init; for tests: %s --agent-fd N\n", argv[0]);
    return 2;
}
