// Owns: waiting for the kernel to make a device: its uevents, by netlink.
// Refuses: their content. Whoever waits looks again for what it wants.
#pragma once

int uevents_open(void); // -1 where the kernel has none; waiting then falls back to short sleeps
// Returns when something happened or the time is over.
void uevents_wait(int fd, int timeout_ms);
