#!/bin/sh
# Fills the current folder with what the command lines of this folder's lists work on. The same on every machine.
set -eu

mkdir -p tree/a/b/c tree/d tree/empty src bin repo site
i=0
while [ $i -lt 200 ]; do
    echo "line $i of the text, $(( (i * 7919 + 13) % 1000 ))" >> text
    i=$((i + 1))
done
printf 'b\na\nc\na\nb\nd\n' > letters
printf 'id,name,score\n1,ann,30\n2,bob,25\n3,cid,41\n4,dee,25\n' > table.csv
printf '3\tthree\n1\tone\n2\ttwo\n' > tabs
printf 'one two three\nfour five six\n\nseven eight\n' > words
printf '{"name": "x", "list": [1, 2, {"deep": true}], "text": "a b"}\n' > data.json
printf '\000\001\002\377binary\n\012\013' > binary
: > nothing
head -c 300000 /dev/zero > zeros
seq 1 20000 > numbers
seq 5 3 40000 > others
cp text text2
sed -i '50s/.*/another line/;120d' text2
for file in tree/a/one.txt tree/a/b/two.txt tree/a/b/c/three.c tree/d/four.h tree/d/.hidden; do
    echo "contents of $file" > "$file"
done
ln -s a/one.txt tree/link
ln -s missing tree/dangling
ln tree/a/one.txt tree/d/hard
chmod 640 tree/a/b/two.txt
touch -d '2020-02-02 02:02:02 UTC' tree/a/one.txt tree/a/b/two.txt tree/a/b/c/three.c tree/d/four.h tree/d/.hidden
touch -d '2020-02-02 02:02:02 UTC' text text2 words letters numbers tree/a tree/d tree/a/b tree/a/b/c tree/empty tree

cat > src/main.c <<'C'
#include <stdio.h>
#include "sum.h"
int main(int argc, char **argv)
{
	(void)argv;
	printf("sum %d\n", sum(argc, 41));
	return 0;
}
C
printf 'int sum(int a, int b);\n' > src/sum.h
printf '#include "sum.h"\nint sum(int a, int b)\n{\n\treturn a + b;\n}\n' > src/sum.c
cat > src/Makefile <<'M'
CFLAGS = -O1 -Wall
program: main.o sum.o
	$(CC) -o $@ $^
main.o: main.c sum.h
sum.o: sum.c sum.h
clean:
	rm -f *.o program
.PHONY: clean
M

cat > script.sh <<'S'
greet() { echo "hello $1"; }
for name in ann bob; do greet $name; done
S
printf 'import sys\nfor line in sys.stdin:\n    print(line.strip()[::-1])\n' > reverse.py
printf 'site\n' > site/index.html

(
    cd repo
    git init -q -b main .
    git config user.name Nobody
    git config user.email nobody@example.org
    echo first > file
    git add file
    git commit -q -m 'first commit'
    echo second >> file
    mkdir dir
    echo other > dir/other
    git add -A
    git commit -q -m 'second commit'
    git branch side HEAD~1
)
