/* A small server, of which each macro makes another version. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NOINLINE __attribute__((noinline, noclone))

#ifdef TEXT_MOVED
const char *greeting(void) { return "this text was not there before, and moves all texts behind it"; }
#endif

#ifdef LINES_MOVED
#line 300 "server.c"
#endif

struct item {
    struct item *next;
    int kind;
#ifdef FIELD_IN_PADDING
    int priority;
#endif
#ifdef FIELD_INSERTED
    long generation;
#endif
    long value;
#ifdef ARRAY_DOUBLED
    char name[64];
#else
    char name[32];
#endif
    void (*handler)(struct item *);
};

#ifdef NEW_ARRAY
static unsigned char seen[64];
#endif
static struct item *items;
static int item_count;
static long total;
#ifdef FLAGS_GREW
static unsigned char flags[56];
#else
static unsigned char flags[40];
#endif
#if defined OLD_ARRAY && !defined NEW_ARRAY
static unsigned char met[64];
#endif
#ifdef NEW_STATIC
static long refused;
#endif

struct settings {
    int port;
    int limit;
#ifdef GLOBAL_GREW
    long timeout;
    long retries;
    long more[8];
#endif
    const char *title;
};

static struct settings settings = {
#ifdef OTHER_INITIAL
    .port = 7000,
#else
    .port = 6379,
#endif
    .limit = 100,
    .title = "server",
};

NOINLINE void settings_check(struct settings *checked) {
    if (checked->port < 0 || checked->limit < 1)
        abort();
}

long shared_counter = 5;
#ifdef THREAD_LOCAL
static __thread long depth;
#endif

static const char *const names[] = {"zero", "one", "two", "three", "four", "five"};

NOINLINE void on_plain(struct item *item) { total += item->value; }
NOINLINE void on_double(struct item *item) { total += 2 * item->value; shared_counter++; }
NOINLINE void on_flag(struct item *item) { flags[item->value & 31] = 1; }

static void (*handlers[])(struct item *) = {on_plain, on_double, on_flag};

NOINLINE struct item *item_new(int kind, long value) {
    struct item *item = malloc(sizeof(struct item));
    assert(item != NULL);
    memset(item, 0, sizeof(*item));
    assert(kind >= 0);
    item->kind = kind;
#ifdef FIELD_IN_PADDING
    item->priority = 1;
#endif
    item->value = value;
    snprintf(item->name, sizeof(item->name), "item %ld", value);
    item->handler = handlers[kind % 3];
    item->next = items;
    items = item;
    item_count++;
    return item;
}

NOINLINE long item_apply(struct item *item, long bound) {
    long done = 0;
    while (item) {
        assert(item->handler);
#ifdef BODY_CHANGED
        if (item->value < 0) {
            total -= 1;
            item = item->next;
            continue;
        }
#endif
#ifdef FIELD_IN_PADDING
        if (item->priority)
#endif
        item->handler(item);
        done += item->value;
        if (done > bound)
            break;
        item = item->next;
    }
    return done;
}

NOINLINE const char *describe(int kind) {
    switch (kind) {
    case 0: return puts("a"), "nothing";
    case 1: return puts("b"), "one thing";
    case 2: return puts("c"), "two things";
    case 3: return puts("d"), names[item_count % 6];
    case 4: total++; return "four things";
    case 5: total += 3; return settings.title;
    case 6: shared_counter--; return "six";
#ifdef CASES_CHANGED
    case 7: return puts("e"), "seven";
    case 8: total = 0; return "eight";
#else
    case 8: return puts("e"), "seven";
    case 7: total = 0; return "eight";
#endif
    default: return "many";
    }
}

NOINLINE int within(long value) {
    assert(value != 77);
#if defined OLD_ARRAY && !defined NEW_ARRAY
    if (++met[value & 63] > 100)
        return 0;
#endif
    return value < settings.limit;
}

NOINLINE int padded(int len) {
#ifdef SUM_CHANGED
    return len + 20;
#else
    return len + 28;
#endif
}

#ifdef NEW_FUNCTION
NOINLINE int acceptable(const char *text) {
    int count = 0;
    for (; *text; text++)
        count += *text == '/' ? 2 : 1;
    return count < 60;
}
#endif

NOINLINE long parse(const char *text) {
    long value = strtol(text, NULL, 0);
#ifdef NEW_FUNCTION
    if (!acceptable(text))
        return -1;
#endif
#ifdef NEW_STATIC
    if (value > 1000000)
        refused++;
    if (refused > 10)
        return 0;
#endif
#ifdef NEW_ARRAY
    if (++seen[value % 61 + 1] > 100)
        return 0;
#endif
#ifdef OTHER_GLOBAL
    shared_counter += value;
#else
    total += value;
#endif
    assert(value != 12345);
    return value;
}

NOINLINE void report(void) {
    settings_check(&settings);
    printf("%s on %d: %d items, %ld, %ld\n", settings.title, settings.port, item_count, total, shared_counter);
    for (int i = 0; i < 40; i++)
        putchar(flags[i] ? '1' : '0');
    assert(item_count >= 0);
#ifdef THREAD_LOCAL
    printf("%ld\n", ++depth);
#endif
}

#ifndef LIBRARY
int main(int argc, char **argv) {
    settings_check(&settings);
    for (int i = 1; i < argc; i++) {
        long value = parse(argv[i]);
        if (within(value))
            item_new(i, value);
        puts(describe(i));
    }
#ifdef MAIN_CHANGED
    if (argc > 50)
        abort();
#endif
    item_apply(items, 1000);
    report();
    return 0;
}
#endif
