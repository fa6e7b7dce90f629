/* A tagged union gets another member and a bigger one. */
#include "kinds.h"

#if VERSION == 1
struct value {
    enum { NUMBER, TEXT } kind;
    union {
        int number;
        char text[8];
    } as;
};
#else
struct value_v1 {
    enum { OLD_NUMBER, OLD_TEXT } kind;
    union {
        int number;
        char text[8];
    } as;
};
struct value {
    enum { NOTHING, NUMBER, TEXT } kind;
    union {
        double number;
        char text[32];
    } as;
};
#endif

struct value values[3];
MVEDSUA_REGISTER(values);

#if VERSION == 2
static int convert(const void *old_value, void *new_value)
{
    const struct value_v1 *old = old_value;
    struct value *made = new_value;
    for (int i = 0; i < 3; i++) {
        if (old[i].kind == OLD_NUMBER) {
            made[i].kind = NUMBER;
            made[i].as.number = old[i].as.number + 0.5;
        } else {
            made[i].kind = TEXT;
            snprintf(made[i].as.text, sizeof made[i].as.text, "longer than %s", old[i].as.text);
        }
    }
    return 0;
}
MVEDSUA_TRANSFORM("values", convert);
#endif

int mvedsua_main(int argc, char **argv)
{
    (void)argc, (void)argv;
#if VERSION == 1
    values[0] = (struct value){NUMBER, {.number = 4}};
    values[1] = (struct value){TEXT, {.text = "four"}};
    values[2] = (struct value){NUMBER, {.number = 44}};
#endif
    for (;;) {
        next_line("loop");
        for (int i = 0; i < 3; i++) {
            if (values[i].kind == TEXT) {
                printf("%s, ", values[i].as.text);
            } else {
                printf("%g, ", (double)values[i].as.number);
            }
        }
        SAY(".");
    }
}
