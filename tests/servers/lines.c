/*
 * A server that answers each line of a client with its number and itself: one process, epoll, any number of clients.
 *
 * It listens on a free port of the loopback interface and prints it. `quit` ends it with code 3. Compiled with FRAGILE it
 * crashes on the line `boom`, with ABORTS it aborts on `bang`; with DAEMON a child serves and the parent ends. On `send` it sends
 * itself a signal that it blocks, and to `take` it answers which one waits. To `pid` it answers its number; `child` starts a child,
 * and to `reap` it answers with what code that ended.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

struct client {
    int fd;
    unsigned lines;
    size_t len;
    char text[1024];
};

static void check(int good, const char *what)
{
    if (!good) {
        perror(what);
        exit(1);
    }
}

static int waits[2];

/* Its child waits until it is told to end. */
static void start_child(void)
{
    char byte;
    check(!pipe2(waits, O_CLOEXEC), "pipe");
    pid_t child = fork();
    check(child >= 0, "fork");
    if (!child)
        _exit(read(waits[0], &byte, 1) == 1 ? 7 : 1);
}

static int reap(void)
{
    int status;
    check(write(waits[1], "x", 1) == 1 && wait(&status) > 0, "wait");
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void answer(struct client *client, const char *line)
{
    char out[1100];
#ifdef FRAGILE
    if (!strcmp(line, "boom"))
        *(volatile int *)8 = 1;
#endif
#ifdef ABORTS
    if (!strcmp(line, "bang"))
        abort();
#endif
    if (!strcmp(line, "quit"))
        exit(3);
    char number[12];
    if (!strcmp(line, "send"))
        check(!kill(getpid(), SIGUSR1), "kill");
    if (!strcmp(line, "take")) {
        sigset_t one;
        sigemptyset(&one);
        sigaddset(&one, SIGUSR1);
        snprintf(number, sizeof number, "%d", sigtimedwait(&one, NULL, &(struct timespec){0}));
        line = number;
    }
    if (!strcmp(line, "child"))
        start_child();
    if (!strcmp(line, "pid") || !strcmp(line, "reap")) {
        snprintf(number, sizeof number, "%d", *line == 'p' ? getpid() : reap());
        line = number;
    }
    int len = snprintf(out, sizeof out, "%u:%s\n", ++client->lines, line);
    check(write(client->fd, out, len) == len, "write");
}

/* Returns 0 when the client has gone. */
static int serve(struct client *client)
{
    ssize_t got = read(client->fd, client->text + client->len, sizeof client->text - client->len);
    if (got <= 0)
        return 0;
    client->len += got;
    char *end;
    while ((end = memchr(client->text, '\n', client->len))) {
        *end = 0;
        answer(client, client->text);
        size_t used = end + 1 - client->text;
        memmove(client->text, end + 1, client->len -= used);
    }
    return client->len < sizeof client->text;
}

int main(void)
{
    struct sockaddr_in place = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof place;
    sigset_t one;
    sigemptyset(&one);
    sigaddset(&one, SIGUSR1);
    check(!sigprocmask(SIG_BLOCK, &one, NULL), "sigprocmask");
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    check(listener >= 0 && !bind(listener, (void *)&place, len) && !listen(listener, 128), "listen");
    check(!getsockname(listener, (void *)&place, &len), "getsockname");
    printf("%d\n", ntohs(place.sin_port));
    fflush(stdout);
#ifdef DAEMON
    if (fork() > 0)
        exit(4);
    check(setsid() > 0, "setsid");
#endif
    int set = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    check(set >= 0 && !epoll_ctl(set, EPOLL_CTL_ADD, listener, &event), "epoll");
    for (;;) {
        struct epoll_event events[16];
        int ready = epoll_wait(set, events, 16, -1);
        check(ready >= 0 || errno == EINTR, "epoll_wait");
        for (int i = 0; i < ready; i++) {
            struct client *client = events[i].data.ptr;
            if (!client) {
                client = calloc(1, sizeof *client);
                check(client && (client->fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) >= 0, "accept");
                event.data.ptr = client;
                check(!epoll_ctl(set, EPOLL_CTL_ADD, client->fd, &event), "epoll_ctl");
            } else if (!serve(client)) {
                close(client->fd);
                free(client);
            }
        }
    }
}
