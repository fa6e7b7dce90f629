/* Version 1 of the key-value store.
 *
 *   put KEY VALUE    OK
 *   get KEY          VALUE, or NOT FOUND
 *   del KEY          OK, or NOT FOUND
 *   count            the number of keys
 *
 * Anything else is answered with ERROR. `kvstore PORT [ENTRIES]`; with ENTRIES it begins with key0 = value0 and so on.
 *
 * Compiled with FRAGILE it crashes on the command `boom`; with HOLD, `hold` takes a lock and `free` gives it back, so that no
 * update can begin between them; with TURNS, `turn` counts, and begins anew where the store is updated.
 */
#include "server.h"

struct entry {
    struct entry *next;
    uint64_t hash;
    char *value;
    char key[];
};

struct table {
    struct entry **buckets;
    size_t size;
    size_t count;
};

static struct table table;
MVEDSUA_REGISTER(table);

static uint64_t hash_of(const char *key)
{
    uint64_t hash = 0xcbf29ce484222325;
    for (; *key; key++) {
        hash = (hash ^ (unsigned char)*key) * 0x100000001b3;
    }
    return hash;
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
            entry->next = buckets[entry->hash & (size - 1)];
            buckets[entry->hash & (size - 1)] = entry;
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

static void put(const char *key, const char *value)
{
    uint64_t hash = hash_of(key);
    if (table.count >= table.size) {
        grow();
    }
    struct entry **link = find(key, hash);
    if (*link) {
        free((*link)->value);
    } else {
        struct entry *entry = room(NULL, sizeof *entry + strlen(key) + 1);
        entry->next = NULL;
        entry->hash = hash;
        strcpy(entry->key, key);
        *link = entry;
        table.count++;
    }
    (*link)->value = strdup(value);
}

#ifdef TURNS
static int turn;
static void begin_anew(void *unused)
{
    (void)unused;
    turn = 0;
}
#endif

static void answer(struct client *client, char *line)
{
    char *rest = line;
    char *command = strsep(&rest, " ");
#ifdef FRAGILE
    if (strcmp(command, "boom") == 0) {
        static volatile int *volatile nowhere = (int *)16;
        *nowhere = 1;
    }
#endif
#ifdef TURNS
    if (strcmp(command, "turn") == 0) {
        char text[32];
        snprintf(text, sizeof text, "%d\n", turn++);
        say(client, text);
        return;
    }
#endif
#ifdef HOLD
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    if (strcmp(command, "hold") == 0 || strcmp(command, "free") == 0) {
        say(client, "ERROR\n");
        command[0] == 'h' ? mvedsua_mutex_lock(&lock) : mvedsua_mutex_unlock(&lock);
        return;
    }
#endif
    if (strcmp(command, "put") == 0 && rest) {
        char *key = strsep(&rest, " ");
        if (*key && rest && *rest && !strchr(rest, ' ')) {
            put(key, rest);
            say(client, "OK\n");
            return;
        }
    } else if ((strcmp(command, "get") == 0 || strcmp(command, "del") == 0) && rest && *rest && !strchr(rest, ' ')) {
        struct entry **link = find(rest, hash_of(rest));
        if (!*link) {
            say(client, "NOT FOUND\n");
        } else if (command[0] == 'g') {
            say(client, (*link)->value);
            say(client, "\n");
        } else {
            struct entry *entry = *link;
            *link = entry->next;
            free(entry->value);
            free(entry);
            table.count--;
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

int mvedsua_main(int argc, char **argv)
{
    if (!mvedsua_updating()) {
        if (argc < 2) {
            fprintf(stderr, "usage: %s PORT [ENTRIES]\n", argv[0]);
            return 2;
        }
#ifdef TURNS
        mvedsua_on_abort(begin_anew, NULL);
#endif
        grow();
        for (long i = 0, n = argc > 2 ? atol(argv[2]) : 0; i < n; i++) {
            char key[32], value[32];
            snprintf(key, sizeof key, "key%ld", i);
            snprintf(value, sizeof value, "value%ld", i);
            put(key, value);
        }
        if (open_listener(argv[1]) != 0) {
            return 1;
        }
    }
    serve();
}
