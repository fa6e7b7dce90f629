/* The update point is in an inner loop, and there is another one outside: control migrates to the right one. */
#include "kinds.h"

int turns;
char user[32];
MVEDSUA_REGISTER(turns);
MVEDSUA_REGISTER(user);

static void session(void)
{
    for (;;) {
        const char *line = next_line("session");
        if (strcmp(line, "bye") == 0) {
            SAY("bye %s", user);
            return;
        }
        turns++;
        SAY("v%d %s turn %d", VERSION, user, turns);
    }
}

int mvedsua_main(int argc, char **argv)
{
    (void)argc, (void)argv;
    int in_session = mvedsua_updating() && strcmp(mvedsua_updating_from(), "session") == 0;
    for (;;) {
        if (!in_session) {
            snprintf(user, sizeof user, "%.30s", next_line("login"));
            turns = 0;
            SAY("v%d hello %s", VERSION, user);
        }
        in_session = 0;
        session();
    }
}
