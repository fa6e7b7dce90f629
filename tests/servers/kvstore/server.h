/* The part of the key-value store that its versions share: clients, and what they send and get.
 *
 * One thread, one epoll set, any number of clients. A client sends lines; each gets one line as its answer. A version
 * defines `answer`, which makes the answer to one line.
 */
#ifndef KVSTORE_SERVER_H
#define KVSTORE_SERVER_H

#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <mvedsua.h>

/* What is added to a descriptor to make the value by which epoll tells of it. */
#ifndef KEY_OF_FD
#define KEY_OF_FD 0
#endif

#define MAX_CLIENTS 16384
#define MAX_LINE 65536

/* What a client has sent and not been answered yet, and what it was answered and has not taken yet. */
struct client {
    char *in;
    size_t in_len, in_room;
    char *out;
    size_t out_len, out_room;
    int wants_room;
};

/* Makes the answer to one line; `line` has no newline, and a zero byte at its end. */
static void answer(struct client *client, char *line);

static int listener = -1;
static int epoll = -1;
static struct client *clients[MAX_CLIENTS];
MVEDSUA_REGISTER(listener);
MVEDSUA_REGISTER(epoll);
MVEDSUA_REGISTER(clients);

static void *room(void *block, size_t size)
{
    void *grown = realloc(block, size);
    if (!grown) {
        abort();
    }
    return grown;
}

static void append(struct client *client, const char *text, size_t len)
{
    if (client->out_len + len > client->out_room) {
        client->out_room = (client->out_len + len) * 2;
        client->out = room(client->out, client->out_room);
    }
    memcpy(client->out + client->out_len, text, len);
    client->out_len += len;
}

static inline void say(struct client *client, const char *text)
{
    append(client, text, strlen(text));
}

static void watch(int operation, int fd, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.fd = fd + KEY_OF_FD};
    if (epoll_ctl(epoll, operation, fd, &event) != 0) {
        abort();
    }
}

static void leave(int fd)
{
    struct client *client = clients[fd];
    clients[fd] = NULL;
    free(client->in);
    free(client->out);
    free(client);
    close(fd);
}

/* Writes what is to be written; says whether the client is still there. */
static int flush(int fd)
{
    struct client *client = clients[fd];
    size_t done = 0;
    while (done < client->out_len) {
        ssize_t n = write(fd, client->out + done, client->out_len - done);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0 && errno == EAGAIN) {
            break;
        }
        if (n <= 0) {
            leave(fd);
            return 0;
        }
        done += (size_t)n;
    }
    memmove(client->out, client->out + done, client->out_len - done);
    client->out_len -= done;
    int wants_room = client->out_len > 0;
    if (wants_room != client->wants_room) {
        client->wants_room = wants_room;
        watch(EPOLL_CTL_MOD, fd, wants_room ? EPOLLIN | EPOLLOUT : EPOLLIN);
    }
    return 1;
}

static void read_from(int fd)
{
    struct client *client = clients[fd];
    if (client->in_room - client->in_len < 4096) {
        client->in_room = client->in_room * 2 + 8192;
        client->in = room(client->in, client->in_room);
    }
    ssize_t n = read(fd, client->in + client->in_len, client->in_room - client->in_len);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) {
        return;
    }
    if (n <= 0) {
        leave(fd);
        return;
    }
    client->in_len += (size_t)n;
    size_t begin = 0;
    char *end;
    while ((end = memchr(client->in + begin, '\n', client->in_len - begin)) != NULL) {
        *end = 0;
        if (end > client->in + begin && end[-1] == '\r') {
            end[-1] = 0;
        }
        answer(client, client->in + begin);
        begin = (size_t)(end - client->in) + 1;
    }
    memmove(client->in, client->in + begin, client->in_len - begin);
    client->in_len -= begin;
    if (client->in_len > MAX_LINE) {
        leave(fd);
        return;
    }
    flush(fd);
}

static void take_client(void)
{
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        return;
    }
    if (fd >= MAX_CLIENTS) {
        close(fd);
        return;
    }
    clients[fd] = calloc(1, sizeof *clients[fd]);
    if (!clients[fd]) {
        abort();
    }
    watch(EPOLL_CTL_ADD, fd, EPOLLIN);
}

static int open_listener(const char *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int one = 1;
    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) != 0 ||
        listen(listener, 511) != 0) {
        perror("in use, or not allowed");
        return -1;
    }
    epoll = epoll_create1(EPOLL_CLOEXEC);
    watch(EPOLL_CTL_ADD, listener, EPOLLIN);
    return 0;
}

/* The loop; its beginning is the update point. */
static _Noreturn void serve(void)
{
    for (;;) {
        mvedsua_update("loop");
        struct epoll_event events[64];
        int n = epoll_wait(epoll, events, 64, -1);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd - KEY_OF_FD;
            if (fd == listener) {
                take_client();
            } else if (!clients[fd]) {
                continue;
            } else if (events[i].events & EPOLLOUT) {
                flush(fd);
            } else {
                read_from(fd);
            }
        }
    }
}

#endif
