// The whole agent over a socketpair, with real commands: windows, stdin's bounds, the ends of channels, meeting again.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "agent.h"
#include "check.h"
#include "frame.h"

enum { EXEC = 2, FILE_WRITE = 4, PTY = 1, STDIN = 2, MERGE = 4 };

static int host;
static pid_t agent;
static uint8_t payload[FRAME_PAYLOAD_MAX];
static struct frame frame;

static void start_agent(void) {
    int ends[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    agent = fork();
    if (agent == 0) {
        static struct stages stages;
        static struct transport transport;
        close(ends[0]);
        transport_init(&transport, NULL, 0);
        transport_adopt(&transport, ends[1]);
        agent_run(&(struct agent_options){.mode = MODE_TEST, .transport = &transport, .stages = &stages, .ready_fd = -1, .go_fd = -1});
    }
    close(ends[1]);
    host = ends[0];
}

static void stop_agent(void) {
    int status;
    close(host);
    CHECK(waitpid(agent, &status, 0) == agent && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void send_all(const void *bytes, size_t length) {
    for (const char *at = bytes; length;) {
        ssize_t sent = send(host, at, length, MSG_NOSIGNAL);
        CHECK(sent > 0);
        at += sent;
        length -= (size_t)sent;
    }
}

static void send_frame(enum frame_type type, uint32_t channel, enum stream stream, const void *bytes, uint32_t length) {
    uint8_t header[FRAME_HEADER];
    frame_put_header(header, type, stream, channel, length);
    send_all(header, sizeof header);
    send_all(bytes, length);
}

static void receive_all(void *out, size_t length) {
    for (char *at = out; length;) {
        struct pollfd wait = {.fd = host, .events = POLLIN};
        CHECK(poll(&wait, 1, 20000) == 1);
        ssize_t got = recv(host, at, length, 0);
        CHECK(got > 0);
        at += got;
        length -= (size_t)got;
    }
}

static void receive(void) {
    uint8_t header[FRAME_HEADER];
    receive_all(header, sizeof header);
    frame = (struct frame){.type = header[0], .stream = header[1], .channel = load_u32(header + 4), .length = load_u32(header + 8), .payload = payload};
    CHECK(load_u16(header + 2) == 0 && frame.length <= FRAME_PAYLOAD_MAX);
    receive_all(payload, frame.length);
}

static void meet(uint8_t nonce) {
    static uint8_t opening[FRAME_MAX + FRAME_HEADER + FRAME_HELLO_MIN];
    uint8_t *hello = opening + FRAME_MAX, window[FRAME_HEADER + FRAME_HELLO_MIN];
    frame_put_header(hello, FRAME_HELLO, STREAM_STDIN, 0, FRAME_HELLO_MIN);
    memcpy(hello + FRAME_HEADER, frame_magic, FRAME_MAGIC);
    memset(hello + FRAME_HEADER + FRAME_MAGIC, nonce, FRAME_NONCE);
    send_all(opening, sizeof opening);
    receive_all(window, sizeof window);
    while (window[0] != FRAME_WELCOME || memcmp(window + FRAME_HEADER, hello + FRAME_HEADER, FRAME_HELLO_MIN) != 0) {
        memmove(window, window + 1, sizeof window - 1);
        receive_all(window + sizeof window - 1, 1);
    }
    receive_all(payload, load_u32(window + 8) - FRAME_HELLO_MIN);
}

static struct builder request(uint16_t method) {
    static uint8_t bytes[4096];
    struct builder builder = builder_in(bytes, sizeof bytes);
    uint8_t number[2];
    store_u16(number, method);
    build_raw(&builder, number, 2);
    return builder;
}

static void open_shell(uint32_t channel, const char *script, uint64_t flags) {
    struct builder builder = request(EXEC);
    build_text(&builder, 1, "/bin/sh");
    build_text(&builder, 1, "-c");
    build_text(&builder, 1, script);
    build_number(&builder, 5, flags);
    send_frame(FRAME_OPEN, channel, STREAM_STDIN, builder.buffer, (uint32_t)builder.length);
    receive();
    CHECK(frame.type == FRAME_STARTED && frame.channel == channel);
}

static void grant(uint32_t channel, enum stream stream, uint32_t amount) {
    uint8_t bytes[4];
    store_u32(bytes, amount);
    send_frame(FRAME_GRANT, channel, stream, bytes, sizeof bytes);
}

static bool silent_for(int ms) { return poll(&(struct pollfd){.fd = host, .events = POLLIN}, 1, ms) == 0; }

// Counts data until something else comes.
static uint64_t receive_data(void) {
    uint64_t total = 0;
    for (receive(); frame.type == FRAME_DATA; receive())
        total += frame.length;
    return total;
}

static void expect_end(uint32_t code, uint8_t tag, uint64_t number) {
    while (frame.type != FRAME_END)
        receive();
    struct fields fields = fields_of(frame.payload + 4, frame.length - 4);
    struct field field;
    uint64_t value;
    CHECK(load_u32(frame.payload) == code);
    if (!tag)
        return;
    CHECK(fields_next(&fields, &field) && field.tag == tag && field_number(&field, &value) && value == number);
}

static void an_exit_status_comes_after_all_output(void) {
    open_shell(1, "echo out; echo err >&2; exit 3", 0);
    int eofs = 0, data = 0;
    for (receive(); frame.type != FRAME_END; receive()) {
        data += frame.type == FRAME_DATA;
        eofs += frame.type == FRAME_EOF;
    }
    CHECK(data == 2 && eofs == 2);
    expect_end(0, 1, 3);
    open_shell(2, "kill -9 $$", 0);
    receive();
    expect_end(0, 2, SIGKILL);
    CHECK(silent_for(50));
}

static void output_stops_at_the_window_and_goes_on_with_a_grant(void) {
    open_shell(3, "exec cat /dev/zero", 0);
    uint64_t total = 0;
    while (total < FRAME_WINDOW) {
        receive();
        CHECK(frame.type == FRAME_DATA);
        total += frame.length;
    }
    CHECK(total == FRAME_WINDOW && silent_for(200));
    grant(3, STREAM_STDOUT, 1000);
    receive();
    CHECK(frame.type == FRAME_DATA && frame.length == 1000 && silent_for(100));
    send_frame(FRAME_CLOSE, 3, STREAM_STDIN, NULL, 0);
    expect_end(ECANCELED, 0, 0);
}

static void other_channels_go_on_beside_a_full_one(void) {
    open_shell(4, "exec cat /dev/zero", 0);
    for (uint64_t total = 0; total < FRAME_WINDOW; total += frame.length)
        receive();
    open_shell(5, "echo hello", MERGE);
    CHECK(receive_data() == 6);
    expect_end(0, 1, 0);
    send_frame(FRAME_CLOSE, 4, STREAM_STDIN, NULL, 0);
    receive();
    expect_end(ECANCELED, 0, 0);
}

static void stdin_of_a_command_that_does_not_read_is_not_granted(void) {
    static const uint8_t bytes[FRAME_PAYLOAD_MAX];
    open_shell(6, "exec sleep 100", STDIN);
    for (int i = 0; i < FRAME_WINDOW / FRAME_PAYLOAD_MAX; i++)
        send_frame(FRAME_DATA, 6, STREAM_STDIN, bytes, sizeof bytes);
    receive(); // what the pipe took
    CHECK(frame.type == FRAME_GRANT && load_u32(frame.payload) <= 65536 + FRAME_PAYLOAD_MAX && silent_for(200));
    send_frame(FRAME_CLOSE, 6, STREAM_STDIN, NULL, 0);
    receive();
    expect_end(ECANCELED, 0, 0);
}

static void a_sender_that_overruns_the_window_loses_the_conversation(void) {
    static const uint8_t bytes[FRAME_PAYLOAD_MAX];
    open_shell(7, "exec sleep 100", STDIN);
    for (int i = 0; i < 2 * FRAME_WINDOW / FRAME_PAYLOAD_MAX; i++)
        send_frame(FRAME_DATA, 7, STREAM_STDIN, bytes, sizeof bytes);
    meet(2);
    open_shell(7, "exit 5", 0); // the number is free again
    receive();
    expect_end(0, 1, 5);
}

static void stdin_reaches_the_command_and_its_end_does_too(void) {
    open_shell(8, "wc -c", STDIN | MERGE);
    send_frame(FRAME_DATA, 8, STREAM_STDIN, "12345", 5);
    send_frame(FRAME_EOF, 8, STREAM_STDIN, NULL, 0);
    receive();
    CHECK(frame.type == FRAME_DATA && memcmp(frame.payload, "5\n", 2) == 0);
    expect_end(0, 1, 0);
}

static void stdin_that_nobody_wants_is_still_granted(void) {
    static const uint8_t bytes[FRAME_PAYLOAD_MAX];
    open_shell(9, "exec <&-; sleep 1; exit 4", STDIN | MERGE);
    uint64_t granted = 0;
    for (int i = 0; i < FRAME_WINDOW / FRAME_PAYLOAD_MAX; i++)
        send_frame(FRAME_DATA, 9, STREAM_STDIN, bytes, sizeof bytes);
    for (receive(); frame.type == FRAME_GRANT; receive())
        granted += load_u32(frame.payload);
    CHECK(granted > FRAME_WINDOW / 2);
    expect_end(0, 1, 4);
}

static void a_grandchild_with_the_pipe_holds_the_end_up_for_a_second_only(void) {
    struct timespec before, after;
    clock_gettime(CLOCK_MONOTONIC, &before);
    open_shell(10, "sleep 30 & echo x; exit 6", MERGE);
    CHECK(receive_data() == 2);
    expect_end(0, 1, 6);
    clock_gettime(CLOCK_MONOTONIC, &after);
    CHECK(after.tv_sec - before.tv_sec <= 5);
}

static void a_terminal_is_one(void) {
    open_shell(11, "test -t 0 && test -t 2 && read x && echo got $x", PTY);
    send_frame(FRAME_DATA, 11, STREAM_STDIN, "abc\n", 4);
    receive_data();
    expect_end(0, 1, 0);
    open_shell(12, "cat; exit 7", PTY);
    send_frame(FRAME_EOF, 12, STREAM_STDIN, NULL, 0);
    receive();
    expect_end(0, 1, 7);
}

static void what_cannot_start_ends_with_the_errno_and_no_started(void) {
    struct builder builder = request(EXEC);
    build_text(&builder, 1, "no-such-program");
    send_frame(FRAME_OPEN, 13, STREAM_STDIN, builder.buffer, (uint32_t)builder.length);
    receive();
    CHECK(frame.type == FRAME_END);
    expect_end(ENOENT, 0, 0);
    builder = request(EXEC);
    send_frame(FRAME_OPEN, 14, STREAM_STDIN, builder.buffer, (uint32_t)builder.length);
    receive();
    expect_end(EINVAL, 0, 0);
    builder = request(EXEC);
    build_raw(&builder, "\x01\xff\xff", 3);
    send_frame(FRAME_OPEN, 15, STREAM_STDIN, builder.buffer, (uint32_t)builder.length);
    receive();
    expect_end(FAILURE_BAD_REQUEST, 0, 0);
    builder = request(999);
    send_frame(FRAME_OPEN, 16, STREAM_STDIN, builder.buffer, (uint32_t)builder.length);
    receive();
    expect_end(FAILURE_UNKNOWN_METHOD, 0, 0);
}

static void more_channels_than_the_table_has_are_refused(void) {
    enum { CHANNELS = 256, FIRST = 1000 };
    struct builder builder = request(10); // wait_port: costs no process
    build_number(&builder, 1, 1);
    build_number(&builder, 2, 60000);
    for (uint32_t i = 0; i <= CHANNELS; i++)
        send_frame(FRAME_OPEN, FIRST + i, STREAM_STDIN, builder.buffer, (uint32_t)builder.length);
    receive();
    CHECK(frame.channel == FIRST + CHANNELS);
    expect_end(FAILURE_TOO_MANY_CHANNELS, 0, 0);
    for (uint32_t i = 0; i < CHANNELS; i++)
        send_frame(FRAME_CLOSE, FIRST + i, STREAM_STDIN, NULL, 0);
    for (uint32_t i = 0; i < CHANNELS; i++) {
        receive();
        expect_end(ECANCELED, 0, 0);
    }
}

// The END of one usage: how many file systems it names; in *connections what field 4 says, -1 without one.
static int file_systems_in_use(uint32_t channel, uint64_t port, int64_t *connections) {
    struct builder builder = request(15);
    struct field field;
    int count = 0;
    *connections = -1;
    if (port)
        build_number(&builder, 1, port);
    send_frame(FRAME_OPEN, channel, STREAM_STDIN, builder.buffer, (uint32_t)builder.length);
    receive();
    CHECK(frame.type == FRAME_END && frame.channel == channel && load_u32(frame.payload) == 0);
    struct fields fields = fields_of(frame.payload + 4, frame.length - 4);
    while (fields_next(&fields, &field)) {
        uint64_t number = 0;
        CHECK(field.tag == 3 || field_number(&field, &number));
        if (field.tag == 3)
            CHECK(field.length > 24 && field.bytes[24] == '/' && ++count);
        if (field.tag == 4)
            *connections = (int64_t)number;
    }
    CHECK(!fields.malformed);
    return count;
}

static void usage_counts_who_is_connected_and_not_who_listens(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int64_t connections;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(bind(listener, (struct sockaddr *)&address, sizeof address) == 0 && listen(listener, 1) == 0);
    CHECK(getsockname(listener, (struct sockaddr *)&address, &length) == 0);
    CHECK(file_systems_in_use(20, ntohs(address.sin_port), &connections) >= 1 && connections == 0);
    CHECK(connect(client, (struct sockaddr *)&address, sizeof address) == 0);
    int server = accept(listener, NULL, NULL);
    CHECK(server >= 0);
    CHECK(file_systems_in_use(21, ntohs(address.sin_port), &connections) >= 1 && connections == 1);
    CHECK(file_systems_in_use(22, 0, &connections) >= 1 && connections == -1);
    close(server);
    close(client);
    close(listener);
}

static void a_port_that_is_none_is_refused(void) {
    struct builder builder = request(15);
    build_number(&builder, 1, 65536);
    send_frame(FRAME_OPEN, 23, STREAM_STDIN, builder.buffer, (uint32_t)builder.length);
    receive();
    expect_end(EINVAL, 0, 0);
}

static void meeting_again_forgets_everything(void) {
    uint8_t half[FRAME_HEADER + 3];
    open_shell(18, "trap '' HUP TERM; sleep 100", STDIN);
    open_shell(17, "exec cat /dev/zero", 0);
    frame_put_header(half, FRAME_DATA, STREAM_STDIN, 18, FRAME_PAYLOAD_MAX);
    send_all(half, sizeof half);
    meet(3);
    CHECK(silent_for(100));
    open_shell(17, "exit 0", 0);
    receive();
    expect_end(0, 1, 0);
}

static void garbage_is_survived(void) {
    srandom(7);
    for (int round = 0; round < 50; round++) {
        uint8_t bytes[4096];
        for (size_t i = 0; i < sizeof bytes; i++)
            bytes[i] = random() % 2 ? (uint8_t)random() : (uint8_t)(random() % 11);
        send_all(bytes, (size_t)random() % sizeof bytes);
        meet((uint8_t)(4 + round));
    }
}

int main(void) {
    alarm(120);
    start_agent();
    meet(1);
    RUN(an_exit_status_comes_after_all_output);
    RUN(output_stops_at_the_window_and_goes_on_with_a_grant);
    RUN(other_channels_go_on_beside_a_full_one);
    RUN(stdin_of_a_command_that_does_not_read_is_not_granted);
    RUN(a_sender_that_overruns_the_window_loses_the_conversation);
    RUN(stdin_reaches_the_command_and_its_end_does_too);
    RUN(stdin_that_nobody_wants_is_still_granted);
    RUN(a_grandchild_with_the_pipe_holds_the_end_up_for_a_second_only);
    RUN(a_terminal_is_one);
    RUN(what_cannot_start_ends_with_the_errno_and_no_started);
    RUN(more_channels_than_the_table_has_are_refused);
    RUN(usage_counts_who_is_connected_and_not_who_listens);
    RUN(a_port_that_is_none_is_refused);
    RUN(meeting_again_forgets_everything);
    RUN(garbage_is_survived);
    stop_agent();
    return 0;
}
