// The agent on a descriptor that it inherits, without an /init around it: for tests that speak to a build with sanitizers.
#include <stdlib.h>
#include <string.h>

#include "agent.h"
#include "check.h"

int main(int argc, char **argv) {
    static struct stages stages;
    static struct transport transport;
    CHECK(argc == 3 && strcmp(argv[1], "--agent-fd") == 0);
    transport_init(&transport, NULL, 0);
    transport_adopt(&transport, atoi(argv[2]));
    agent_run(&(struct agent_options){.mode = MODE_TEST, .transport = &transport, .stages = &stages, .ready_fd = -1, .go_fd = -1});
}
