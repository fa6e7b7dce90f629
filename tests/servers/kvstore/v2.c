/* Version 2 of the key-value store: values have a type.
 *
 *   put TYPE KEY VALUE   OK; TYPE is string or int, and the value of an int is a number
 *   get KEY              VALUE, or NOT FOUND
 *   type KEY             TYPE, or NOT FOUND
 *   del KEY              OK, or NOT FOUND
 *   count                the number of keys
 *
 * Anything else, a put without a type too, is answered with ERROR. Compiled with one of the BAD_ macros (`bad.h` says
 * which there are) it is a version that must not come into service. With TURNS, `turn` counts the calls of this version. With
 * ASKS its entry does what an entry may do: it reads a file, asks what its descriptors are, and registers them anew.
 */
#ifdef ASKS
#define KEY_OF_FD 1000000
#endif
#include "server.h"

enum type { STRING, INT };

struct entry {
    enum type type;
    uint32_t key_len;
    uint64_t hash;
    int64_t number;
    char *text;
    struct entry *next;
    char key[];
};

struct table {
    size_t size;
    size_t count;
    size_t numbers;
    struct entry **buckets;
};

static struct table table;
MVEDSUA_REGISTER(table);

#include "bad.h"

static const char *const TYPES[] = {"string", "int"};

static uint64_t hash_of(const char *key)
{
    uint64_t hash = 0xcbf29ce484222325;
    for (; *key; key++) {
        hash = (hash ^ (unsigned char)*key) * 0x100000001b3;
    }
    return hash;
}

static void link_in(struct entry **buckets, size_t size, struct entry *entry)
{
    entry->next = buckets[entry->hash & (size - 1)];
    buckets[entry->hash & (size - 1)] = entry;
}

static void grow(void)
{
    size_t size = table.size ? table.size * 2 : 1024;
    struct entry **buckets = calloc(size, sizeof *buckets);
    if (!buckets) {
        abort();
    }
    for (size_t i = 0; i < table.size; i++) {
        for (struct entry *entry = table.buckets[i], *next; entry; entry = next) {
            next = entry->next;
            link_in(buckets, size, entry);
        }
    }
    free(table.buckets);
    table.buckets = buckets;
    table.size = size;
}

/* Returns the link that points, or would point, at the entry. */
static struct entry **find(const char *key, uint64_t hash)
{
    struct entry **link = &table.buckets[hash & (table.size - 1)];
    while (*link && ((*link)->hash != hash || strcmp((*link)->key, key) != 0)) {
        link = &(*link)->next;
    }
    return link;
}

static struct entry *new_entry(const char *key, uint64_t hash)
{
    size_t len = strlen(key);
    struct entry *entry = room(NULL, sizeof *entry + len + 1);
    *entry = (struct entry){.key_len = (uint32_t)len, .hash = hash};
    memcpy(entry->key, key, len + 1);
    return entry;
}

static void put(enum type type, const char *key, const char *value, int64_t number)
{
    uint64_t hash = hash_of(key);
    if (table.count >= table.size) {
        grow();
    }
    struct entry **link = find(key, hash);
    if (!*link) {
        *link = new_entry(key, hash);
        table.count++;
    } else {
        table.numbers -= (*link)->type == INT;
        free((*link)->text);
    }
    (*link)->type = type;
    (*link)->number = number;
    (*link)->text = strdup(value);
    table.numbers += type == INT;
}

/* The entry of version 1, which is here so that it can be read. */
struct entry_v1 {
    struct entry_v1 *next;
    uint64_t hash;
    char *value;
    char key[];
};

struct table_v1 {
    struct entry_v1 **buckets;
    size_t size;
    size_t count;
};

/* Turns every (key, value) into (string, key, value). The old entry is freed, its value becomes the new one's. */
static int add_types(const void *old_value, void *new_value)
{
    const struct table_v1 *old = old_value;
    struct table *made = new_value;
    bad_transformer();
    made->size = old->size;
    made->count = old->count;
    made->buckets = calloc(old->size, sizeof *made->buckets);
    if (!made->buckets) {
        mvedsua_error("no memory for the table");
        return -1;
    }
    size_t seen = 0;
#ifdef BAD_TRANSFORMER_FAILS
    mvedsua_error("this one always fails");
    return -1;
#endif
    for (size_t i = 0; i < old->size; i++) {
        for (struct entry_v1 *entry = old->buckets[i], *next; entry; entry = next) {
            next = entry->next;
            if (bad_drops(seen++)) {
                continue;
            }
            struct entry *typed = new_entry(entry->key, entry->hash);
            typed->type = STRING;
            typed->text = entry->value;
            bad_frees(entry->value);
            link_in(made->buckets, made->size, typed);
            free(entry);
        }
    }
    free(old->buckets);
    return 0;
}
MVEDSUA_TRANSFORM("table", add_types);

static int is_number(const char *text, int64_t *number)
{
    char *end;
    errno = 0;
    *number = strtoll(text, &end, 10);
    return *text && !*end && errno == 0;
}

static void answer(struct client *client, char *line)
{
    char *rest = line;
    char *command = strsep(&rest, " ");
    bad_command();
#ifdef TURNS
    static int turn;
    if (strcmp(command, "turn") == 0) {
        char text[32];
        snprintf(text, sizeof text, "%d\n", turn++);
        say(client, text);
        return;
    }
#endif
    if (strcmp(command, "put") == 0 && rest) {
        char *type = strsep(&rest, " ");
        char *key = strsep(&rest, " ");
        int64_t number = 0;
        if (key && *key && rest && *rest && !strchr(rest, ' ')) {
            if (strcmp(type, "string") == 0 || (strcmp(type, "int") == 0 && is_number(rest, &number))) {
                put(type[0] == 's' ? STRING : INT, key, rest, number);
                say(client, "OK\n");
                return;
            }
        }
    } else if (rest && *rest && !strchr(rest, ' ') &&
               (strcmp(command, "get") == 0 || strcmp(command, "del") == 0 || strcmp(command, "type") == 0)) {
        struct entry **link = find(rest, hash_of(rest));
        if (!*link) {
            say(client, "NOT FOUND\n");
        } else if (command[0] == 'g') {
            bad_byte((*link)->text);
            say(client, (*link)->text);
            say(client, "\n");
        } else if (command[0] == 't') {
            say(client, TYPES[(*link)->type]);
            say(client, "\n");
        } else {
            struct entry *entry = *link;
            *link = entry->next;
            table.numbers -= entry->type == INT;
            table.count--;
            free(entry->text);
            free(entry);
            say(client, "OK\n");
        }
        return;
    } else if (strcmp(command, "count") == 0 && !rest) {
        char text[32];
        snprintf(text, sizeof text, "%zu\n", table.count);
        say(client, text);
        return;
    }
    say(client, "ERROR\n");
}

#ifdef ASKS
#include <sys/stat.h>

static int ask_all(const char *port)
{
    struct sockaddr_in address;
    socklen_t len = sizeof address;
    struct stat stat;
    char line[64];
    FILE *file = fopen("/proc/self/comm", "r");
    if (!file || !fgets(line, sizeof line, file) || fclose(file) != 0 || strcmp(line, "kvstore\n") != 0) {
        return 1;
    }
    if (getsockname(listener, (struct sockaddr *)&address, &len) != 0 || ntohs(address.sin_port) != atoi(port)) {
        return 2;
    }
    int type;
    len = sizeof type;
    if (getsockopt(listener, SOL_SOCKET, SO_TYPE, &type, &len) != 0 || type != SOCK_STREAM) {
        return 3;
    }
    if (fstat(listener, &stat) != 0 || !S_ISSOCK(stat.st_mode) || !(fcntl(listener, F_GETFL) & O_NONBLOCK)) {
        return 4;
    }
    for (int fd = 0; fd < MAX_CLIENTS; fd++) {
        if (clients[fd] || fd == listener) {
            watch(EPOLL_CTL_MOD, fd, clients[fd] && clients[fd]->wants_room ? EPOLLIN | EPOLLOUT : EPOLLIN);
        }
    }
    return 0;
}
#endif

int mvedsua_main(int argc, char **argv)
{
#ifdef ASKS
    int wrong = mvedsua_updating() ? ask_all(argv[1]) : 0;
    if (wrong) {
        return wrong;
    }
#endif
    if (!mvedsua_updating()) {
        if (argc < 2) {
            fprintf(stderr, "usage: %s PORT [ENTRIES]\n", argv[0]);
            return 2;
        }
        grow();
        for (long i = 0, n = argc > 2 ? atol(argv[2]) : 0; i < n; i++) {
            char key[32], value[32];
            snprintf(key, sizeof key, "key%ld", i);
            snprintf(value, sizeof value, "value%ld", i);
            put(STRING, key, value, 0);
        }
        if (open_listener(argv[1]) != 0) {
            return 1;
        }
    }
    if (bad_entry()) {
        return 3;
    }
    serve();
}
