/* Runs one corner by its name; corner.h says what that is. */
#include "corner.h"

extern const struct corner __start_corners[], __stop_corners[];

/* Corners that execute this program again give it a word of its own. */
int executed(int argc, char **argv);

int main(int argc, char **argv)
{
	if (argc == 2 && strcmp(argv[1], "--list") == 0) {
		for (const struct corner *one = __start_corners; one < __stop_corners; one++)
			say("%s %d", one->name, one->ends);
		return 0;
	}
	if (argc >= 3 && strcmp(argv[1], "--executed") == 0)
		return executed(argc - 2, argv + 2);
	for (const struct corner *one = __start_corners; argc == 2 && one < __stop_corners; one++) {
		if (strcmp(one->name, argv[1]) == 0) {
			one->run();
			return 0;
		}
	}
	dprintf(2, "usage: %s NAME | --list\n", argv[0]);
	return 2;
}
