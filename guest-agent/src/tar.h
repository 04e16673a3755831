// Owns: the layout of a tar header block, shared by the packer and the unpacker. POSIX.1-2001 (pax) with GNU's long names on input.
#pragma once

enum { TAR_BLOCK = 512, TAR_NAME = 100 };

enum tar_type {
    TAR_FILE = '0',
    TAR_HARD_LINK = '1',
    TAR_SYMLINK = '2',
    TAR_CHARACTER = '3',
    TAR_BLOCK_DEVICE = '4',
    TAR_DIRECTORY = '5',
    TAR_FIFO = '6',
    TAR_CONTIGUOUS = '7',
    TAR_PAX = 'x',
    TAR_PAX_GLOBAL = 'g',
    TAR_GNU_LONG_NAME = 'L',
    TAR_GNU_LONG_LINK = 'K',
};

struct tar_header {
    char name[TAR_NAME];
    char mode[8];
    char uid[8];
    char gid[8];
    char size[12];
    char mtime[12];
    char checksum[8];
    char type;
    char target[TAR_NAME];
    char magic[6];
    char version[2];
    char user[32];
    char group[32];
    char major[8];
    char minor[8];
    char prefix[155];
    char padding[12];
};

_Static_assert(sizeof(struct tar_header) == TAR_BLOCK, "a tar header is one block");
