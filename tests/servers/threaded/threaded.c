/*
 * A server with a thread for each connection: `threaded PORT`. Lines in, lines out:
 *
 *   put KEY VALUE    OK
 *   get KEY          VALUE, or NOT FOUND
 *   del KEY          OK, or NOT FOUND
 *   anything else    ERROR
 *
 * The threads are detached and end with their connections. All share one table of entries that are allocated and freed by
 * whichever thread comes: readers hold a lock together, writers alone.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BUCKETS 1024
#define LINE 1024

struct entry {
	struct entry *next;
	char *value;
	char key[];
};

static struct entry *buckets[BUCKETS];
static pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER;

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static struct entry **place_of(const char *key)
{
	uint32_t hash = 2166136261u;
	for (const char *at = key; *at; at++)
		hash = (hash ^ (unsigned char)*at) * 16777619u;
	struct entry **place = &buckets[hash % BUCKETS];
	while (*place && strcmp((*place)->key, key) != 0)
		place = &(*place)->next;
	return place;
}

static void put(const char *key, const char *value)
{
	char *copy = strdup(value);
	pthread_rwlock_wrlock(&lock);
	struct entry **place = place_of(key);
	if (*place) {
		free((*place)->value);
	} else {
		*place = calloc(1, sizeof **place + strlen(key) + 1);
		strcpy((*place)->key, key);
	}
	(*place)->value = copy;
	pthread_rwlock_unlock(&lock);
}

static int get(const char *key, char *value, size_t len)
{
	pthread_rwlock_rdlock(&lock);
	struct entry *entry = *place_of(key);
	if (entry)
		snprintf(value, len, "%s", entry->value);
	pthread_rwlock_unlock(&lock);
	return entry != NULL;
}

static int del(const char *key)
{
	pthread_rwlock_wrlock(&lock);
	struct entry **place = place_of(key), *entry = *place;
	if (entry)
		*place = entry->next;
	pthread_rwlock_unlock(&lock);
	if (!entry)
		return 0;
	free(entry->value);
	free(entry);
	return 1;
}

static void answer(char *line, char *out, size_t len)
{
	char *rest = NULL, *verb = strtok_r(line, " ", &rest), *key = strtok_r(NULL, " ", &rest);
	char *value = strtok_r(NULL, " ", &rest);
	if (verb && key && value && !strtok_r(NULL, " ", &rest) && strcmp(verb, "put") == 0) {
		put(key, value);
		snprintf(out, len, "OK");
	} else if (verb && key && !value && strcmp(verb, "get") == 0) {
		if (!get(key, out, len))
			snprintf(out, len, "NOT FOUND");
	} else if (verb && key && !value && strcmp(verb, "del") == 0) {
		snprintf(out, len, del(key) ? "OK" : "NOT FOUND");
	} else {
		snprintf(out, len, "ERROR");
	}
}

static void *serve(void *arg)
{
	int client = (int)(intptr_t)arg;
	size_t have = 0, room = LINE;
	char *input = malloc(room), *output = malloc(LINE);
	for (;;) {
		ssize_t got = read(client, input + have, room - 1 - have);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			break;
		have += (size_t)got;
		input[have] = 0;
		char *end;
		while ((end = memchr(input, '\n', have))) {
			*end = 0;
			answer(input, output, LINE - 1);
			size_t len = strlen(output);
			output[len++] = '\n';
			for (size_t sent = 0; sent < len;) {
				ssize_t put = write(client, output + sent, len - sent);
				if (put < 0 && errno != EINTR)
					goto left;
				sent += put > 0 ? (size_t)put : 0;
			}
			have -= (size_t)(end + 1 - input);
			memmove(input, end + 1, have);
		}
		if (have == room - 1)
			break;
	}
left:
	free(output);
	free(input);
	close(client);
	return NULL;
}

int main(int argc, char **argv)
{
	if (argc != 2) {
		fprintf(stderr, "usage: %s PORT\n", argv[0]);
		return 2;
	}
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), yes = 1;
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1])) };
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
	if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0)
		die("bind");
	if (listen(listener, 512) != 0)
		die("listen");
	/* A client that leaves before its answer is no reason to end. */
	if (signal(SIGPIPE, SIG_IGN) == SIG_ERR)
		die("signal");
	pthread_attr_t attr;
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, 128 << 10);
	for (;;) {
		int client = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		if (client < 0) {
			if (errno != EINTR && errno != ECONNABORTED)
				die("accept");
			continue;
		}
		pthread_t thread;
		if (pthread_create(&thread, &attr, serve, (void *)(intptr_t)client) != 0)
			close(client);
	}
}
