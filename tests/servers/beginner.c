/* A server whose second version has the mistake of a beginner, told by one of these at compile time:
 *
 *   RENAMED_POINT   its update point has another name
 *   NO_POINT        it has none
 *   NEVER_A_POINT   version 1 has none either
 *   CRASHES         its transformer crashes
 *   LEAVES          it does not register what version 1 registers
 *   RENAMED         it registers it under another name
 *   FORGOTTEN       version 1 has it and does not register it
 *
 * Each line is answered with the number of lines so far.
 */
#include <mvedsua.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#ifdef SECOND
#define IS_SECOND 1
#else
#define IS_SECOND 0
#endif

/* Whatever the mistake, the two are not the same. */
const int version = 1 + IS_SECOND;

static int listener = -1;
MVEDSUA_REGISTER(listener);

#if IS_SECOND && defined RENAMED
int lines_so_far;
MVEDSUA_REGISTER(lines_so_far);
#define lines lines_so_far
#else
int lines;
#endif
#if !(IS_SECOND && defined RENAMED) && !(IS_SECOND && defined LEAVES) && !(!IS_SECOND && defined FORGOTTEN)
MVEDSUA_REGISTER(lines);
#endif

#if IS_SECOND && defined CRASHES
static int crash(const void *old_value, void *new_value)
{
    static volatile int *volatile nowhere = (int *)16;
    (void)old_value, (void)new_value;
    return *nowhere;
}
MVEDSUA_TRANSFORM("lines", crash);
#endif

static void update_point(void)
{
#if defined NEVER_A_POINT || (IS_SECOND && defined NO_POINT)
#elif IS_SECOND && defined RENAMED_POINT
    mvedsua_update("next client");
#else
    mvedsua_update("accept");
#endif
}

int mvedsua_main(int argc, char **argv)
{
    if (!mvedsua_updating()) {
        struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(argc > 1 ? atoi(argv[1]) : 0)};
        int one = 1;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        listener = socket(AF_INET, SOCK_STREAM, 0);
        setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0 || listen(listener, 64) != 0) {
            perror("listening");
            return 1;
        }
    }
    for (;;) {
        update_point();
        int fd = accept(listener, NULL, NULL);
        if (fd < 0) {
#ifdef NEVER_A_POINT
            /* It does not know EINTR either. */
            return 1;
#else
            continue;
#endif
        }
        char text[64];
        while (read(fd, text, sizeof text) > 0) {
            dprintf(fd, "%d\n", ++lines);
        }
        close(fd);
    }
}
