#include "modes.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "fields.h"

enum state { GROUND, ESCAPE, CONTROL_SEQUENCE, CHARSET, STRING, STRING_ESCAPE, CHARACTER };
enum { ESC = 0x1b, CAN = 0x18, SUB = 0x1a, BEL = 0x07, SHIFT_OUT = 0x0e, SHIFT_IN = 0x0f, PARAMETERS = 16 };

// The alternate screen first: what comes after it is set on the screen that is shown.
static const struct {
    uint16_t number;
    bool fresh; // as a fresh terminal has it
} followed[] = {
    {47, false},   {1047, false}, {1049, false}, {1, false},    {5, false},    {7, true},     {25, true},    {66, false},   {1000, false},
    {1002, false}, {1003, false}, {1004, false}, {1005, false}, {1006, false}, {1007, false}, {1015, false}, {1016, false}, {2004, false},
    {6, false},
};

enum { FOLLOWED = sizeof followed / sizeof *followed };

static void set_mode(struct modes *modes, unsigned number, bool on) {
    for (int i = 0; i < FOLLOWED; i++) {
        if (followed[i].number != number)
            continue;
        uint32_t bit = UINT32_C(1) << i;
        modes->changed = on == followed[i].fresh ? modes->changed & ~bit : modes->changed | bit;
    }
}

static void reset(struct modes *modes) { *modes = (struct modes){.state = GROUND}; }

static void soft_reset(struct modes *modes) {
    const unsigned off[] = {1, 6, 66};
    for (size_t i = 0; i < sizeof off / sizeof *off; i++)
        set_mode(modes, off[i], false);
    set_mode(modes, 25, true);
    modes->top = modes->bottom = 0;
    modes->keypad = modes->shifted = 0;
    memset(modes->charset, 0, sizeof modes->charset);
}

// `ESC [`, parameters, `final`; all of it is pending.
static void end_sequence(struct modes *modes, uint8_t final) {
    unsigned numbers[PARAMETERS] = {0};
    int count = 0;
    const uint8_t *at = modes->pending + 2, *end = modes->pending + modes->pending_length;
    uint8_t prefix = at < end && *at >= '<' && *at <= '?' ? *at++ : 0;
    uint8_t middle = 0;
    for (; at < end; at++) {
        if (*at >= '0' && *at <= '9')
            numbers[count] = numbers[count] < 100000 ? numbers[count] * 10 + (*at - '0') : numbers[count];
        else if (*at == ';')
            count = count < PARAMETERS - 1 ? count + 1 : count;
        else
            middle = *at;
    }
    count++;
    if (prefix == '?' && !middle && (final == 'h' || final == 'l')) {
        for (int i = 0; i < count; i++)
            set_mode(modes, numbers[i], final == 'h');
    } else if (!prefix && !middle && final == 'r') {
        bool given = numbers[0] || numbers[1];
        modes->top = given ? (uint16_t)(numbers[0] ? numbers[0] : 1) : 0;
        modes->bottom = (uint16_t)numbers[1];
    } else if (!prefix && middle == '!' && final == 'p') {
        soft_reset(modes);
    } else if (!prefix && middle == ' ' && final == 'q') {
        modes->cursor = (uint8_t)numbers[0];
    }
}

static void pend(struct modes *modes, uint8_t byte) {
    if (modes->pending_length < MODES_PENDING)
        modes->pending[modes->pending_length++] = byte;
    else
        modes->pending_length = 2; // too long to be one that we follow; its rest is still a sequence's
}

static void settle(struct modes *modes) {
    modes->state = GROUND;
    modes->pending_length = 0;
}

static void begin(struct modes *modes, enum state state, uint8_t byte) {
    modes->pending_length = 0;
    pend(modes, byte);
    modes->state = state;
}

static void feed_ground(struct modes *modes, uint8_t byte) {
    if (byte == ESC)
        begin(modes, ESCAPE, byte);
    else if (byte >= 0xc2 && byte < 0xf5)
        begin(modes, CHARACTER, byte);
    else if (byte == SHIFT_OUT || byte == SHIFT_IN)
        modes->shifted = byte == SHIFT_OUT;
}

static void feed_escape(struct modes *modes, uint8_t byte) {
    pend(modes, byte);
    switch (byte) {
    case '[':
        modes->state = CONTROL_SEQUENCE;
        return;
    case '(':
    case ')':
        modes->state = CHARSET;
        return;
    case ']':
    case 'P':
    case 'X':
    case '^':
    case '_':
        modes->state = STRING;
        return;
    case 'c':
        reset(modes);
        return;
    case '=':
    case '>':
        modes->keypad = byte == '=';
        break;
    }
    if (byte < 0x20 || byte > 0x2f)
        settle(modes);
}

static void feed_one(struct modes *modes, uint8_t byte) {
    if (modes->state == CHARACTER) {
        uint8_t first = modes->pending[0];
        int whole = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
        if ((byte & 0xc0) == 0x80) {
            pend(modes, byte);
            if (modes->pending_length == whole)
                settle(modes);
            return;
        }
        settle(modes); // it is cut: this byte is another's
    }
    if (byte == CAN || byte == SUB) {
        settle(modes);
        return;
    }
    if (byte == ESC && modes->state != GROUND && modes->state != STRING) {
        begin(modes, ESCAPE, byte);
        return;
    }
    switch ((enum state)modes->state) {
    case GROUND:
    case CHARACTER:
        feed_ground(modes, byte);
        break;
    case ESCAPE:
        feed_escape(modes, byte);
        break;
    case CONTROL_SEQUENCE:
        if (byte >= 0x40 && byte <= 0x7e) {
            end_sequence(modes, byte);
            settle(modes);
        } else if (byte >= 0x20) {
            pend(modes, byte);
        }
        break;
    case CHARSET:
        modes->charset[modes->pending[1] == ')'] = byte == 'B' ? 0 : byte;
        settle(modes);
        break;
    case STRING: // its introducer is pending, its text is not kept
        if (byte == ESC)
            modes->state = STRING_ESCAPE;
        else if (byte == BEL)
            settle(modes);
        break;
    case STRING_ESCAPE:
        if (byte == '\\')
            settle(modes);
        else {
            begin(modes, ESCAPE, ESC);
            feed_escape(modes, byte);
        }
        break;
    }
}

void modes_feed(struct modes *modes, const uint8_t *bytes, size_t length) {
    for (size_t i = 0; i < length; i++) {
        // Most of what passes is plain text.
        if (modes->state == GROUND && bytes[i] >= 0x20 && bytes[i] < 0x7f)
            continue;
        feed_one(modes, bytes[i]);
    }
}

__attribute__((format(printf, 2, 3))) static void say(struct builder *out, const char *format, ...) {
    char text[32];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    build_raw(out, text, (size_t)length);
}

size_t modes_restore(const struct modes *modes, uint8_t *out) {
    struct builder built = builder_in(out, MODES_RESTORE_MAX);
    for (int i = 0; i < FOLLOWED; i++) {
        // The origin, the last of them, is the region's.
        if (i == FOLLOWED - 1 && modes->top && modes->bottom)
            say(&built, "\x1b[%u;%ur", modes->top, modes->bottom);
        else if (i == FOLLOWED - 1 && modes->top)
            say(&built, "\x1b[%ur", modes->top);
        if (modes->changed & UINT32_C(1) << i)
            say(&built, "\x1b[?%u%c", followed[i].number, followed[i].fresh ? 'l' : 'h');
    }
    if (modes->keypad)
        say(&built, "\x1b=");
    for (int i = 0; i < 2; i++)
        if (modes->charset[i])
            say(&built, "\x1b%c%c", i ? ')' : '(', modes->charset[i]);
    if (modes->shifted)
        say(&built, "%c", SHIFT_OUT);
    if (modes->cursor)
        say(&built, "\x1b[%u q", modes->cursor);
    build_raw(&built, modes->pending, modes->pending_length);
    if (modes->state == STRING_ESCAPE)
        say(&built, "%c", ESC);
    return built.length;
}
