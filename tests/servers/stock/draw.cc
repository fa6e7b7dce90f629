/* A line server, with a thread for each connection, that uses the library `shapes`. */
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shapes.h"

static void *wait_in_library(void *fd) {
    shapes_wait(*static_cast<int *>(fd));
    return nullptr;
}

/* Has a thread cancelled that waits in the library. */
static void cancel() {
    static int ends[2];
    pthread_t thread;
    if (pipe(ends) || pthread_create(&thread, nullptr, wait_in_library, &ends[0]))
        abort();
    if (write(ends[1], "x", 1) != 1)
        abort();
    pthread_cancel(thread);
    pthread_join(thread, nullptr);
    close(ends[0]);
    close(ends[1]);
}

static void *serve(void *argument) {
    int fd = static_cast<int>(reinterpret_cast<long>(argument));
    char line[512], out[600];
    size_t have = 0;
    long count = 0;
    for (;;) {
        ssize_t got = read(fd, line + have, sizeof line - 1 - have);
        if (got <= 0)
            break;
        have += static_cast<size_t>(got);
        line[have] = 0;
        char *end = strchr(line, '\n');
        if (!end)
            continue;
        *end = 0;
        have = 0;
        count++;
        if (!strcmp(line, "count")) {
            snprintf(out, sizeof out, "%ld\n", count);
        } else if (!strncmp(line, "echo ", 5)) {
            snprintf(out, sizeof out, "%.500s\n", line + 5);
        } else if (!strncmp(line, "square ", 7)) {
            int len = shapes_measure(atof(line + 7), out, 500);
            strcpy(out + len, "\n");
        } else if (!strcmp(line, "asked")) {
            snprintf(out, sizeof out, "%ld\n", shapes_asked());
        } else if (!strcmp(line, "cancel")) {
            long before = shapes_cleaned();
            cancel();
            snprintf(out, sizeof out, "%ld\n", shapes_cleaned() - before);
        } else {
            strcpy(out, "what?\n");
        }
        if (write(fd, out, strlen(out)) < 0)
            break;
    }
    close(fd);
    return nullptr;
}

int main(int argc, char **argv) {
    sockaddr_in address = {};
    int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(static_cast<unsigned short>(argc > 1 ? atoi(argv[1]) : 0));
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, reinterpret_cast<sockaddr *>(&address), sizeof address) || listen(fd, 64)) {
        perror("address in use");
        return 1;
    }
    for (;;) {
        long client = accept(fd, nullptr, nullptr);
        pthread_t thread;
        if (client >= 0 && !pthread_create(&thread, nullptr, serve, reinterpret_cast<void *>(client)))
            pthread_detach(thread);
    }
}
