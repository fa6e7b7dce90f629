/* Pointers to functions (one is renamed), to a global, into an array, to the heap; and one to a literal, that stays. */
#include "kinds.h"

static int ten(int x) { return x * 10 + VERSION; }
static int hundred(int x) { return x * 100 + VERSION; }
#if VERSION == 1
static int old_name(int x) { return x + 1; }
MVEDSUA_FUNCTION(old_name);
#define RENAMED old_name
#else
static int new_name(int x) { return x + 2; }
MVEDSUA_FUNCTION_FROM(new_name, "old_name");
#define RENAMED new_name
#endif
MVEDSUA_FUNCTION(ten);
MVEDSUA_FUNCTION(hundred);

int values[4] = {1, 2, 3, 4};
int (*handlers[3])(int) = {hundred, ten, RENAMED};
int *favourite = values;
int *heap;
const char *literal = "old literal";
MVEDSUA_REGISTER(values);
MVEDSUA_REGISTER(handlers);
MVEDSUA_REGISTER(favourite);
MVEDSUA_REGISTER(heap);
MVEDSUA_REGISTER(literal);

#if VERSION == 2
static int translate(const void *old_value, void *new_value)
{
    *(void **)new_value = mvedsua_translate(*(void *const *)old_value);
    return *(void **)new_value == NULL;
}
static int translate_handlers(const void *old_value, void *new_value)
{
    return translate(old_value, new_value) || translate((void *const *)old_value + 1, (void **)new_value + 1) ||
           translate((void *const *)old_value + 2, (void **)new_value + 2);
}
MVEDSUA_TRANSFORM("handlers", translate_handlers);
MVEDSUA_TRANSFORM("favourite", translate);
MVEDSUA_TRANSFORM("heap", translate);
#endif

int mvedsua_main(int argc, char **argv)
{
    (void)argc, (void)argv;
    if (!mvedsua_updating()) {
        heap = malloc(sizeof *heap);
        *heap = 5;
        favourite = &values[2];
        handlers[0] = ten;
        handlers[1] = hundred;
    }
    for (;;) {
        next_line("loop");
        values[2]++;
        SAY("%d %d %d favourite %d heap %d %s", handlers[0](1), handlers[1](1), handlers[2](1), *favourite, *heap, literal);
    }
}
