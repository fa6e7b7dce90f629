/* A renamed global, one that is computed from another, and one that is computed from nothing. */
#include "kinds.h"

#if VERSION == 1
int seconds = 90;
MVEDSUA_REGISTER(seconds);
#else
int timeout;
long timeout_ms;
int born = -1;
MVEDSUA_REGISTER(timeout);
MVEDSUA_REGISTER(timeout_ms);
MVEDSUA_REGISTER(born);
MVEDSUA_TRANSFORM_FROM("timeout", "seconds", NULL);

static int to_ms(const void *old_value, void *new_value)
{
    *(long *)new_value = *(const int *)old_value * 1000L;
    return 0;
}
MVEDSUA_TRANSFORM_FROM("timeout_ms", "seconds", to_ms);

static int birth(const void *old_value, void *new_value)
{
    *(int *)new_value = old_value == NULL && *(int *)mvedsua_old("seconds") == 95;
    return 0;
}
MVEDSUA_TRANSFORM("born", birth);

static int sum;
static int add_up(const void *old_value, void *new_value)
{
    sum = timeout + born + (old_value == new_value);
    return 0;
}
MVEDSUA_TRANSFORM_LAST(add_up);
#endif

int mvedsua_main(int argc, char **argv)
{
    (void)argc, (void)argv;
    for (;;) {
        next_line("loop");
#if VERSION == 1
        SAY("%d", seconds += 5);
#else
        SAY("%d %ld %d %d", timeout, timeout_ms, born, sum);
#endif
    }
}
