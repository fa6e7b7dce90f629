/* Globals, a static, and locals of two functions are carried over; a new global has its initial value. */
#include "kinds.h"

int number = 1;
static char word[16] = "first";
MVEDSUA_REGISTER(number);
MVEDSUA_REGISTER_AS("globals.c:word", word);
#if VERSION == 2
int fresh = 42;
MVEDSUA_REGISTER(fresh);
#endif

static void loop(int depth)
{
    int rounds = depth;
    MVEDSUA_REGISTER_LOCAL(rounds);
    for (;;) {
        const char *line = next_line("loop");
        rounds++;
        if (strcmp(line, "change") == 0) {
            number = 7;
            strcpy(word, "second");
        }
#if VERSION == 1
        SAY("number %d word %s rounds %d", number, word, rounds);
#else
        SAY("v2 number %d word %s rounds %d fresh %d", number, word, rounds, fresh);
#endif
    }
}

int mvedsua_main(int argc, char **argv)
{
    (void)argc, (void)argv;
    int depth = 100;
    MVEDSUA_REGISTER_LOCAL(depth);
    if (!mvedsua_updating()) {
        depth = 200;
    }
    loop(depth);
    return 0;
}
