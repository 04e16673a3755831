// Owns: what a terminal would have been told by output that is not held any more: its modes, not its characters.
// Refuses: drawing. Colours and the cursor's place are not followed; a program that draws whole screens sets them again.
#pragma once

#include <stddef.h>
#include <stdint.h>

enum { MODES_RESTORE_MAX = 512, MODES_PENDING = 64 };

struct modes {
    uint32_t changed; // a bit for each followed private mode that is not as a fresh terminal's
    uint16_t top;     // of the scroll region, 0: none
    uint16_t bottom;
    uint8_t keypad;     // application mode
    uint8_t charset[2]; // as G0 and G1, 0: ASCII
    uint8_t shifted;    // G1 is in use
    uint8_t cursor;     // its shape, 0: the default
    uint8_t state;
    uint8_t pending_length; // of a sequence that is not whole yet
    uint8_t pending[MODES_PENDING];
};

void modes_feed(struct modes *modes, const uint8_t *bytes, size_t length);
// What brings a fresh terminal here. Returns its length, at most MODES_RESTORE_MAX.
size_t modes_restore(const struct modes *modes, uint8_t *out);
