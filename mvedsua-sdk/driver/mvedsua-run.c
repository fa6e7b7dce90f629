/* The executable of an updatable program: it holds the runtime, and runs the version that is its first argument. */
#include <stdio.h>

int mvedsua_run(const char *object, int argc, char **argv);

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: %s VERSION.so [ARGUMENT]...\n", argv[0]);
        return 2;
    }
    /* The version sees itself as the program: its arguments begin with its own name. */
    return mvedsua_run(argv[1], argc - 1, argv + 1);
}
