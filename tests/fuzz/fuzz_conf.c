/* SPDX-License-Identifier: MIT */
#include "conf.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/*
 * Any bytes as a configuration. What loads must be dumped as something that loads again, and is
 * dumped as the same.
 */

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
must(bool is_so)
{
    if (!is_so)
        abort();
}

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    must(clearenv() == 0 && setenv("PORT", "7000", 1) == 0 && setenv("EMPTY", "", 1) == 0 &&
         setenv("SERVER", "127.0.0.1:8000 $ backup", 1) == 0 && setenv("BAD", "a\nb", 1) == 0);
    return 0;
}

/* Returns the text that ${data} is dumped as, or NULL when it is refused. */
static char *
load_and_dump(const void *data, size_t size)
{
    char path[32], *text = NULL, *errors = NULL;
    const char *paths[] = {path};
    size_t text_len, errors_len;
    int fd = memfd_create("conf", MFD_CLOEXEC);
    FILE *out = open_memstream(&text, &text_len), *err = open_memstream(&errors, &errors_len);
    struct conf *conf;

    must(fd != -1 && out != NULL && err != NULL);
    must(write(fd, data, size) == (ssize_t)size);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    conf = conf_load(paths, 1, err);
    if (conf != NULL)
        conf_dump(conf, out);
    must(fclose(out) == 0 && fclose(err) == 0 && close(fd) == 0);
    must((conf != NULL) == (errors_len == 0));
    /* Each fault is one whole line. */
    must(conf != NULL || errors[errors_len - 1] == '\n');
    must(memchr(errors, '\0', errors_len) == NULL);
    if (conf == NULL) {
        free(text);
        text = NULL;
    }
    conf_free(conf);
    free(errors);
    return text;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text, *again;

    /* No input names a file outside: to open a device may do something. */
    if (memmem(data, size, "include", 7) != NULL && memchr(data, '/', size) != NULL)
        return -1;
    text = load_and_dump(data, size);
    if (text == NULL)
        return 0;
    again = load_and_dump(text, strlen(text));
    must(again != NULL && strcmp(again, text) == 0);
    free(again);
    free(text);
    return 0;
}
