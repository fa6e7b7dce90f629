/* A text among the code, as assembler files keep it: it decodes, and what looks like its jumps leads into padding.
 * Built with `-fno-toplevel-reorder`: it stands between two functions. */

int served, refused, limit = 10, last;

__attribute__((noinline)) int serve(int request) {
#ifdef CHANGED
    if (request < 0)
        return -1;
#endif
    served++;
    last = request;
    return served * 3 + request;
}

__asm__(".text\n"
        "    .p2align 4\n"
        "    .asciz \"Montgomery Multiplication for x86_64\"\n"
        "    .skip 200, 0x90\n"
        "    .p2align 4\n");

__attribute__((noinline)) int refuse(int request) {
    refused += request;
    return refused > limit ? limit : refused;
}

int main(int count, char **arguments) {
    return serve(count) + refuse(count + last);
}
