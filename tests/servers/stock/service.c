/*
 * A line server that knows nothing of updates. Its next versions are made by defining one or more of the names below; tests
 * build two of them, strip both and have the running one go over to the other.
 *
 *   GREETING  another text                    AREA      another case of a table of jumps
 *   CALLBACK  another body of a callback      DIVIDES   division by zero is answered (without it the server crashes)
 *   FRESH     a variable of its own           HELPER    a function that is new
 *   NAMES     another text in a table         LOOP      the event loop, which never returns, is another one
 *   GROWN     a global that is larger         WRONG     an answer that is wrong
 *   SPINS     an answer that never comes      IMPORT    functions of the C library that were not used before
 *   VALUE     another initial value           CHOSEN    one that the C library chooses at the start (IFUNC)
 *   TALLY     a table of its own
 *
 * With REPORTS, in both versions, it tells of a crash before it ends; ABORTS, in the next one, lets a client cause it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#define FAR __attribute__((noinline))
#define MOST 256

typedef void (*tick_fn)(long *);

struct entry {
    struct entry *next;
    tick_fn on_tick;
    long value;
    char key[];
};

#ifdef FRESH
/* They lie behind all others, and have names that the linker keeps: so it shows that the old version does not have them. */
long since, never;
#endif

#ifdef TALLY
/* It lies among the others, and code takes its address: only symbols tell that it is new. */
static unsigned char tally[61];
#endif

#ifdef GROWN
#define PLACES 32
#else
#define PLACES 16
#endif
static struct entry *entries[PLACES];
#ifdef VALUE
static long unit = 250;
#else
static long unit = 100;
#endif
static long answers;
static struct pollfd files[MOST];
static nfds_t count;

/* What is known of a connection: how often it asked, and the part of its next line that has come. */
static struct client {
    int asked;
    size_t have;
    char line[512];
} clients[MOST];

static const char *const names[] = {
    "zero", "one", "two", "three",
#ifdef NAMES
    "quattro",
#else
    "four",
#endif
    "five",
};

FAR static unsigned hash(const char *key) {
    unsigned sum = 5381;
    while (*key)
        sum = sum * 33 + (unsigned char)*key++;
    return sum;
}

FAR static void tick(long *value) {
#ifdef CALLBACK
    *value = *value * *value + 1;
#else
    *value += 1;
#endif
}

FAR static void tock(long *value) { *value -= 1; }

FAR static struct entry *find(const char *key) {
    unsigned place = hash(key) % PLACES;
    for (struct entry *entry = entries[place]; entry; entry = entry->next)
        if (!strcmp(entry->key, key))
            return entry;
    struct entry *entry = malloc(sizeof *entry + strlen(key) + 1);
    if (!entry)
        abort();
    strcpy(entry->key, key);
    entry->value = 0;
    entry->on_tick = tick;
    entry->next = entries[place];
    return entries[place] = entry;
}

/* Compares a pointer to a function that was stored long ago with the function's address. */
FAR static const char *kind(const struct entry *entry) {
#ifdef CALLBACK
    if (!entry)
        return "none";
#endif
    if (entry->on_tick == tick)
        return "tick";
    return entry->on_tick == tock ? "tock" : "unknown";
}

FAR static long area(int shape, long a, long b) {
    switch (shape) {
    case 'a': return a * b;
    case 'b': return a + b;
    case 'c': return a - b;
    case 'd':
#ifdef AREA
        return a * b * 3;
#elif defined(TALLY)
        return a * b * 2 + ++tally[(unsigned long)b % 61];
#else
        return a * b * 2;
#endif
    case 'e': return a ^ b;
    case 'f': return a | b;
    case 'g': return a & b;
    default: return -1;
    }
}

FAR static void divide(char *out, size_t room, long a, long b) {
#ifdef DIVIDES
    if (!b) {
        snprintf(out, room, "by zero");
        return;
    }
#endif
    snprintf(out, room, "%ld", a / b);
}

#ifdef HELPER
FAR static void sign(char *out, size_t room) {
    size_t len = strlen(out);
    snprintf(out + len, room - len, ", yours");
}
#endif

FAR static void greet(char *out, size_t room) {
#ifdef GREETING
    snprintf(out, room, "good morning, this is version 2 (%s)", names[2]);
#elif defined(IMPORT)
    char text[] = "hello";
    snprintf(out, room, "%s", strfry(memfrob(memfrob(text, 5), 5)) ? "hello" : "");
#elif defined(CHOSEN)
    static const char text[] = "no hello";
    const char *hello = memrchr(text, 'h', (size_t)answers % 2 + 4);
    snprintf(out, room, "%s again", hello ? hello : "");
#else
    snprintf(out, room, "hello");
#endif
#ifdef HELPER
    sign(out, room);
#endif
}

FAR static void name(char *out, size_t room, long which) {
    if (which < 0 || which > 5)
        which = 0;
    snprintf(out, room, "%s", names[which]);
}

FAR static void seen(char *out, size_t room) {
#ifdef FRESH
    since++;
    never += 2;
    snprintf(out, room, "%ld %ld %ld", answers, since, never);
#else
    snprintf(out, room, "%ld", answers);
#endif
}

FAR static void answer(char *line, char *out, size_t room) {
    char *key = strchr(line, ' ');
    long a = 0, b = 0;
    if (key)
        *key++ = 0;
    answers++;
    if (!strcmp(line, "hello")) {
        greet(out, room);
    } else if (!strcmp(line, "add") && key) {
        struct entry *entry = find(key);
        entry->on_tick(&entry->value);
        snprintf(out, room, "%ld", entry->value);
    } else if (!strcmp(line, "turn") && key) {
        struct entry *entry = find(key);
        entry->on_tick = entry->on_tick == tick ? tock : tick;
        snprintf(out, room, "%s", kind(entry));
    } else if (!strcmp(line, "kind") && key) {
        snprintf(out, room, "%s", kind(find(key)));
    } else if (!strcmp(line, "area") && key && sscanf(key + 1, "%ld %ld", &a, &b) == 2) {
        snprintf(out, room, "%ld", area(*key, a, b));
    } else if (!strcmp(line, "divide") && key && sscanf(key, "%ld %ld", &a, &b) == 2) {
        divide(out, room, a, b);
    } else if (!strcmp(line, "name") && key) {
        name(out, room, atol(key));
    } else if (!strcmp(line, "unit")) {
        if (key)
            unit = atol(key);
        snprintf(out, room, "%ld", unit);
    } else if (!strcmp(line, "seen")) {
        seen(out, room);
#ifdef ABORTS
    } else if (!strcmp(line, "boom")) {
        abort();
#endif
    } else if (!strcmp(line, "echo") && key) {
        snprintf(out, room, "%s", key);
    } else {
        snprintf(out, room, "what?");
    }
}

FAR static int serve(nfds_t index) {
    struct client *client = &clients[index];
    char out[600];
    ssize_t got = read(files[index].fd, client->line + client->have, sizeof client->line - 1 - client->have);
    if (got <= 0)
        return 0;
    client->have += (size_t)got;
    client->line[client->have] = 0;
    char *end = strchr(client->line, '\n');
    if (!end)
        return client->have < sizeof client->line - 1;
    *end = 0;
    client->have = 0;
    client->asked++;
    if (!strcmp(client->line, "count"))
        snprintf(out, sizeof out, "%d", client->asked);
    else
        answer(client->line, out, sizeof out - 1);
#ifdef WRONG
    if (answers % 64 == 63)
        strcpy(out, "wrong");
#endif
#ifdef SPINS
    while (answers % 64 == 63)
        __asm__ volatile("pause");
#endif
    strcat(out, "\n");
    return write(files[index].fd, out, strlen(out)) > 0;
}

FAR static void loop(void) {
    for (;;) {
        if (poll(files, count, -1) < 0 && errno != EINTR)
            exit(1);
#ifdef LOOP
        if (files[0].revents & POLLERR)
            abort();
#endif
        for (nfds_t index = count; index-- > 1;)
            if (files[index].revents && !serve(index)) {
                close(files[index].fd);
                clients[index] = clients[count - 1];
                files[index] = files[--count];
            }
        if (files[0].revents && count < MOST) {
            int fd = accept(files[0].fd, NULL, NULL);
            if (fd >= 0) {
                clients[count].asked = 0;
                clients[count].have = 0;
                files[count++] = (struct pollfd){.fd = fd, .events = POLLIN};
            }
        }
    }
}

#ifdef REPORTS
static void report(int signo) {
    static const char text[] = "it crashed\n";
    int maps = open("/proc/self/maps", O_RDONLY);
    char line[256];
    while (read(maps, line, sizeof line) > 0)
        ;
    if (write(2, text, sizeof text - 1) < 0)
        _exit(4);
    signal(signo, SIG_DFL);
    raise(signo);
}
#endif

int main(int argc, char **argv) {
#ifdef REPORTS
    signal(SIGFPE, report);
    signal(SIGABRT, report);
#endif
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    if (argc < 2 || fd < 0)
        return 2;
    address.sin_port = htons((unsigned short)atoi(argv[1]));
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 64)) {
        perror("address in use");
        return 1;
    }
    files[count++] = (struct pollfd){.fd = fd, .events = POLLIN};
    loop();
    return 0;
}
