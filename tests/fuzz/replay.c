/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * Stands in for libFuzzer, which only clang has: runs a fuzz target once over each file named. A fault ends the process, as
 * it does there.
 */

int LLVMFuzzerInitialize(int *argc, char ***argv) __attribute__((weak));
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The memory has the size of the file, so that a sanitizer sees the first byte read too many. */
static int
replay(const char *path)
{
    FILE *in = fopen(path, "rb");
    uint8_t *data = NULL;
    long size;
    int result = -1;

    if (in == NULL || fseek(in, 0, SEEK_END) != 0 || (size = ftell(in)) < 0)
        goto out;
    rewind(in);
    data = malloc(size > 0 ? (size_t)size : 1);
    if (data == NULL || fread(data, 1, (size_t)size, in) != (size_t)size)
        goto out;
    (void)LLVMFuzzerTestOneInput(data, (size_t)size);
    result = 0;
out:
    if (result != 0)
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
    free(data);
    if (in != NULL)
        fclose(in);
    return result;
}

int
main(int argc, char **argv)
{
    int i;

    if (LLVMFuzzerInitialize != NULL)
        (void)LLVMFuzzerInitialize(&argc, &argv);
    for (i = 1; i < argc; i++) {
        if (replay(argv[i]) != 0)
            return EXIT_FAILURE;
    }
    printf("replayed %d files\n", argc - 1);
    return argc > 1 ? EXIT_SUCCESS : EXIT_FAILURE;
}
