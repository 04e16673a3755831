// Owns: the few macros that the C tests share. A test is a function that returns; CHECK ends the program with its place.
#pragma once

#include <stdio.h>
#include <stdlib.h>

#define CHECK(condition)                                                                                                           \
    do {                                                                                                                           \
        if (!(condition)) {                                                                                                        \
            fprintf(stderr, "%s:%d: CHECK(%s) failed\n", __FILE__, __LINE__, #condition);                                          \
            exit(1);                                                                                                               \
        }                                                                                                                          \
    } while (0)

#define RUN(test)                                                                                                                  \
    do {                                                                                                                           \
        test();                                                                                                                    \
        fprintf(stderr, "%s\n", #test);                                                                                            \
    } while (0)
