/* What the programs in this folder share: each is one file that is compiled as VERSION 1 and as VERSION 2, reads commands
 * from its input, a line each, and answers each with a line. */
#ifndef KINDS_H
#define KINDS_H

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <mvedsua.h>

/* The update point and the read that blocks. Returns a line without its end; ends the program at the end of the input. */
static inline const char *next_line(const char *point)
{
    static char line[256];
    for (size_t len = 0; len < sizeof line;) {
        if (len == 0) {
            mvedsua_update(point);
        }
        ssize_t n = read(0, line + len, 1);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            exit(0);
        }
        if (line[len] == '\n') {
            line[len] = 0;
            return line;
        }
        len++;
    }
    abort();
}

#define SAY(...) (printf(__VA_ARGS__), putchar('\n'), fflush(stdout))

#endif
