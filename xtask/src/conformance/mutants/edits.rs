//! The mutants: version 2 of the key-value store with one small edit each, as a slip of the hand would make it.

use anyhow::{Result, ensure};

/// One small edit of `tests/servers/kvstore/v2.c`, or of `server.h`, which it includes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Edit {
    pub(super) name: &'static str,
    /// The text that is replaced. It stands once in the two files together.
    pub(super) from: &'static str,
    pub(super) to: &'static str,
}

const fn edit(name: &'static str, from: &'static str, to: &'static str) -> Edit {
    Edit { name, from, to }
}

/// The edits, in the order of the file.
pub(super) const EDITS: &[Edit] = &[
    // The transformer.
    edit("transformer: size halved", "made->size = old->size;", "made->size = old->size / 2;"),
    edit("transformer: count left out", "made->count = old->count;", ""),
    edit("transformer: count one too many", "made->count = old->count;", "made->count = old->count + 1;"),
    edit("transformer: numbers counted", "made->count = old->count;", "made->count = old->count; made->numbers = 7;"),
    edit(
        "transformer: buckets not cleared",
        "calloc(old->size, sizeof *made->buckets)",
        "malloc(old->size * sizeof *made->buckets)",
    ),
    edit(
        "transformer: first bucket left out",
        "for (size_t i = 0; i < old->size; i++) {\n        for (struct entry_v1",
        "for (size_t i = 1; i < old->size; i++) {\n        for (struct entry_v1",
    ),
    edit(
        "transformer: last bucket left out",
        "i < old->size; i++) {\n        for (struct entry_v1",
        "i + 1 < old->size; i++) {\n        for (struct entry_v1",
    ),
    edit(
        "transformer: half the buckets left out",
        "i < old->size; i++) {\n        for (struct entry_v1",
        "i < old->size; i += 2) {\n        for (struct entry_v1",
    ),
    edit(
        "transformer: only the first of a bucket",
        "            next = entry->next;\n            if (bad_drops",
        "            next = NULL;\n            if (bad_drops",
    ),
    edit("transformer: one entry of 64 left out", "if (bad_drops(seen++)) {", "if (seen++ % 64 == 5) {"),
    edit("transformer: one entry in all left out", "if (bad_drops(seen++)) {", "if (seen++ == 700) {"),
    edit("transformer: hash left out", "new_entry(entry->key, entry->hash)", "new_entry(entry->key, 0)"),
    edit(
        "transformer: hash of another bucket",
        "new_entry(entry->key, entry->hash)",
        "new_entry(entry->key, entry->hash ^ 1)",
    ),
    edit("transformer: type int", "typed->type = STRING;", "typed->type = INT;"),
    edit("transformer: type left out", "typed->type = STRING;", ""),
    edit("transformer: key for a value", "typed->text = entry->value;", "typed->text = strdup(entry->key);"),
    edit("transformer: value freed", "typed->text = entry->value;", "typed->text = entry->value; free(entry->value);"),
    edit("transformer: value shared by copies", "typed->text = entry->value;", "typed->text = strdup(entry->value);"),
    edit(
        "transformer: value without its first byte",
        "typed->text = entry->value;",
        "typed->text = strdup(entry->value + 1);",
    ),
    edit("transformer: value cut", "typed->text = entry->value;", "typed->text = strndup(entry->value, 20);"),
    edit("transformer: entry not linked", "link_in(made->buckets, made->size, typed);", "(void)typed;"),
    edit(
        "transformer: entry linked by the key's length",
        "link_in(made->buckets, made->size, typed);",
        "typed->next = made->buckets[typed->key_len]; made->buckets[typed->key_len] = typed;",
    ),
    edit(
        "transformer: old entry not freed",
        "link_in(made->buckets, made->size, typed);\n            free(entry);",
        "link_in(made->buckets, made->size, typed);",
    ),
    edit(
        "transformer: old entry freed twice",
        "link_in(made->buckets, made->size, typed);\n            free(entry);",
        "link_in(made->buckets, made->size, typed);\n            free(entry);\n            free(entry);",
    ),
    edit("transformer: old buckets not freed", "    free(old->buckets);\n", ""),
    edit(
        "transformer: says that it fails",
        "    free(old->buckets);\n    return 0;",
        "    free(old->buckets);\n    return 1;",
    ),
    edit(
        "transformer: of another variable",
        "MVEDSUA_TRANSFORM(\"table\", add_types);",
        "MVEDSUA_TRANSFORM(\"tables\", add_types);",
    ),
    edit(
        "transformer: none",
        "MVEDSUA_TRANSFORM(\"table\", add_types);",
        "__attribute__((used)) static int (*const unused)(const void *, void *) = add_types;",
    ),
    // The table.
    edit("hash: another start", "0xcbf29ce484222325", "0xcbf29ce484222326"),
    edit("hash: another prime", "* 0x100000001b3", "* 0x100000001b5"),
    edit("hash: signed bytes", "(hash ^ (unsigned char)*key)", "(hash ^ (uint64_t)*key)"),
    edit("hash: the last byte left out", "for (; *key; key++) {", "for (; *key && key[1]; key++) {"),
    edit(
        "link: into the wrong bucket",
        "buckets[entry->hash & (size - 1)] = entry;",
        "buckets[entry->hash & (size - 2)] = entry;",
    ),
    edit(
        "link: the rest of the bucket lost",
        "entry->next = buckets[entry->hash & (size - 1)];",
        "entry->next = NULL;",
    ),
    edit("grow: not twice the size", "table.size ? table.size * 2 : 1024", "table.size ? table.size * 3 : 1024"),
    edit("grow: size not set", "    table.size = size;\n}", "}"),
    edit(
        "grow: the last bucket left out",
        "for (size_t i = 0; i < table.size; i++) {",
        "for (size_t i = 0; i + 1 < table.size; i++) {",
    ),
    edit(
        "grow: old buckets not freed",
        "    free(table.buckets);\n    table.buckets = buckets;",
        "    table.buckets = buckets;",
    ),
    edit("find: keys not compared", "strcmp((*link)->key, key) != 0)", "0)"),
    edit("find: hashes not compared", "(*link)->hash != hash || strcmp", "strcmp"),
    edit("find: one byte of the keys compared", "strcmp((*link)->key, key) != 0)", "(*link)->key[0] != key[0])"),
    edit(
        "find: the first entry skipped",
        "    return link;\n}",
        "    return *link && (*link)->next ? &(*link)->next : link;\n}",
    ),
    edit("entry: the key's end not copied", "memcpy(entry->key, key, len + 1);", "memcpy(entry->key, key, len);"),
    edit("entry: a byte too little room", "room(NULL, sizeof *entry + len + 1);", "room(NULL, sizeof *entry + len);"),
    edit(
        "entry: next not cleared",
        "*entry = (struct entry){.key_len = (uint32_t)len, .hash = hash};",
        "entry->key_len = (uint32_t)len; entry->hash = hash;",
    ),
    edit("put: never grows", "if (table.count >= table.size) {", "if (0) {"),
    edit("put: grows late", "if (table.count >= table.size) {", "if (table.count > table.size) {"),
    edit(
        "put: link found before it grows",
        "    struct entry **link = find(key, hash);\n    if (!*link) {\n        *link = new",
        "    struct entry **link = find(key, hash + (table.count % 97 == 3));\n    if (!*link) {\n        *link = new",
    ),
    edit("put: not counted", "        table.count++;\n    } else", "    } else"),
    edit(
        "put: counted twice where there is one",
        "        table.numbers -= (*link)->type == INT;\n",
        "        table.count++;\n",
    ),
    edit("put: old value not freed", "        free((*link)->text);\n", ""),
    edit("put: value not copied", "(*link)->text = strdup(value);", "(*link)->text = (char *)value;"),
    edit(
        "put: an old value kept",
        "(*link)->text = strdup(value);",
        "if (!(*link)->text) { (*link)->text = strdup(value); }",
    ),
    edit("put: a long value cut", "(*link)->text = strdup(value);", "(*link)->text = strndup(value, 1000);"),
    edit("put: number not kept", "    (*link)->number = number;\n", ""),
    edit("put: type not kept", "    (*link)->type = type;\n", ""),
    // The commands.
    edit("command: counts them", "    bad_command();\n", "    static unsigned long n; if (++n == 900) { abort(); }\n"),
    edit(
        "command: one in 500 is not answered",
        "    bad_command();\n",
        "    static unsigned long n; if (++n % 500 == 0) { return; }\n",
    ),
    edit(
        "command: one in 500 is answered twice",
        "    bad_command();\n",
        "    static unsigned long n; if (++n % 500 == 0) { say(client, \"OK\\n\"); }\n",
    ),
    edit("command: loses 64 KiB", "    bad_command();\n", "    memset(room(NULL, 65536), 1, 65536);\n"),
    edit("command: computes for 2 ms", "    bad_command();\n", "    for (volatile int i = 0; i < 2000000; i++) { }\n"),
    edit(
        "command: opens a file",
        "    bad_command();\n",
        "    static unsigned long n; if (++n == 300) { close(open(\"/dev/null\", O_RDONLY)); }\n",
    ),
    edit(
        "command: says it to the log",
        "    bad_command();\n",
        "    static unsigned long n; if (++n == 300) { fprintf(stderr, \"300\\n\"); }\n",
    ),
    edit(
        "command: loops at its 600th",
        "    bad_command();\n",
        "    static unsigned long n; for (volatile int on = ++n == 600; on;) { }\n",
    ),
    edit("put: types swapped", "put(type[0] == 's' ? STRING : INT,", "put(type[0] == 's' ? INT : STRING,"),
    edit(
        "put: a value with a space",
        "rest && *rest && !strchr(rest, ' ')) {\n            if",
        "rest && *rest) {\n            if",
    ),
    edit("put: an empty key", "if (key && *key && rest", "if (key && rest"),
    edit(
        "put: says ok in small letters",
        "                say(client, \"OK\\n\");\n                return;",
        "                say(client, \"ok\\n\");\n                return;",
    ),
    edit(
        "put: says nothing",
        "                say(client, \"OK\\n\");\n                return;",
        "                return;",
    ),
    edit(
        "put: falls through",
        "                say(client, \"OK\\n\");\n                return;",
        "                say(client, \"OK\\n\");",
    ),
    edit("get: not found in other words", "say(client, \"NOT FOUND\\n\");", "say(client, \"NOTFOUND\\n\");"),
    edit("get: the key for the value", "say(client, (*link)->text);", "say(client, (*link)->key);"),
    edit(
        "get: value without its end of line",
        "            say(client, (*link)->text);\n            say(client, \"\\n\");",
        "            say(client, (*link)->text);",
    ),
    edit(
        "get: one byte wrong, each 200th",
        "bad_byte((*link)->text);",
        "static unsigned long n; if (++n % 200 == 0) { (*link)->text[0] ^= 1; }",
    ),
    edit(
        "del: the rest of the bucket lost",
        "            *link = entry->next;\n            table.numbers",
        "            *link = NULL;\n            table.numbers",
    ),
    edit(
        "del: not unlinked",
        "            *link = entry->next;\n            table.numbers",
        "            table.numbers",
    ),
    edit("del: not counted", "            table.count--;\n", ""),
    edit(
        "del: value not freed",
        "            free(entry->text);\n            free(entry);\n            say",
        "            free(entry);\n            say",
    ),
    edit(
        "del: entry not freed",
        "            free(entry->text);\n            free(entry);\n            say",
        "            free(entry->text);\n            say",
    ),
    edit(
        "del: value freed twice",
        "            free(entry->text);\n            free(entry);\n            say",
        "            free(entry->text);\n            free(entry->text);\n            say",
    ),
    edit("del: numbers miscounted", "table.numbers -= entry->type == INT;", "table.numbers -= 1;"),
    edit("del: gets instead", "else if (command[0] == 'g') {", "else if (command[0] != 't') {"),
    edit("count: the table's size", "\"%zu\\n\", table.count", "\"%zu\\n\", table.size"),
    edit("count: with a word", "\"%zu\\n\", table.count", "\"%zu keys\\n\", table.count"),
    edit("count: not with a rest", "strcmp(command, \"count\") == 0 && !rest", "strcmp(command, \"count\") == 0"),
    edit("error: in other words", "say(client, \"ERROR\\n\");\n}", "say(client, \"WRONG\\n\");\n}"),
    edit("error: none", "    say(client, \"ERROR\\n\");\n}", "}"),
    edit("error: counted as a number", "if (strcmp(type, \"string\") == 0 ||", "if (strcmp(type, \"strinG\") == 0 ||"),
    // What both versions share.
    edit("server: a smaller room", "in_room - client->in_len < 4096", "in_room - client->in_len < 1"),
    edit(
        "server: the first line of a read only",
        "        begin = (size_t)(end - client->in) + 1;\n",
        "        begin = (size_t)(end - client->in) + 1;\n        break;\n",
    ),
    edit("server: half lines are lost", "client->in_len -= begin;\n", "client->in_len = 0;\n"),
    edit(
        "server: a carriage return is kept",
        "        if (end > client->in + begin && end[-1] == '\\r') {\n            end[-1] = 0;\n        }\n",
        "",
    ),
    edit("server: a client that leaves is not closed", "    free(client);\n    close(fd);", "    free(client);"),
    edit("server: what a client was told is not freed", "    free(client->out);\n", ""),
    edit(
        "server: answers in two writes",
        "ssize_t n = write(fd, client->out + done, client->out_len - done);",
        "ssize_t n = write(fd, client->out + done, client->out_len - done > 1 ? 1 : 1);",
    ),
    edit("server: long lines end a client", "client->in_len > MAX_LINE", "client->in_len > 100"),
    edit("server: four events at once", "epoll_wait(epoll, events, 64, -1)", "epoll_wait(epoll, events, 4, -1)"),
    edit("server: a wait with a limit", "epoll_wait(epoll, events, 64, -1)", "epoll_wait(epoll, events, 64, 100)"),
    edit(
        "server: accepted without flags",
        "SOCK_NONBLOCK | SOCK_CLOEXEC);\n    if (fd < 0)",
        "SOCK_NONBLOCK);\n    if (fd < 0)",
    ),
];

/// What is compiled of a mutant.
pub(super) struct Sources {
    pub(super) version: String,
    pub(super) server: String,
}

/// Makes an edit.
pub(super) fn apply(edit: &Edit, version: &str, server: &str) -> Result<Sources> {
    let (here, there) = (version.matches(edit.from).count(), server.matches(edit.from).count());
    ensure!(here + there == 1, "{:?} stands {here} times in v2.c and {there} times in server.h", edit.from);
    Ok(Sources { version: version.replace(edit.from, edit.to), server: server.replace(edit.from, edit.to) })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_edit_has_its_place_and_its_name() {
        let read = |name: &str| std::fs::read_to_string(super::super::servers().join(name)).unwrap();
        let (version, server) = (read("v2.c"), read("server.h"));
        for edit in EDITS {
            let made = apply(edit, &version, &server).unwrap_or_else(|error| panic!("{}: {error}", edit.name));
            assert!(made.version != version || made.server != server, "{} changes nothing", edit.name);
        }
        let names: BTreeSet<&str> = EDITS.iter().map(|edit| edit.name).collect();
        assert_eq!(names.len(), EDITS.len());
        assert!(EDITS.len() >= 60, "{}", EDITS.len());
    }
}
