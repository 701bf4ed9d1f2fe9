/* SPDX-License-Identifier: MIT */
#include "conf_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The file's identity: it may be reached by several paths. */
struct conf_file_id {
    dev_t dev;
    ino_t ino;
    const char *name;
};

/* A fault of a path: told where the path comes from. */
static void
path_error(struct conf_load *ld, const struct conf_pending *p, const char *what, const char *detail)
{
    struct conf_place at = {.file = p->path};

    if (p->at.key == NULL)
        conf_error(ld, &at, "%s%s", what, detail);
    else
        conf_error(ld, &p->at, "'%s' %s%s", p->path, what, detail);
}

static bool
is_new_file(struct conf_load *ld, const struct conf_pending *p, const struct stat *st)
{
    struct conf_file_id *ids;

    for (size_t i = 0; i < ld->n_ids; i++) {
        if (ld->ids[i].dev == st->st_dev && ld->ids[i].ino == st->st_ino) {
            path_error(ld, p, "was read already, as ", ld->ids[i].name);
            return false;
        }
    }
    ids = reallocarray(ld->ids, ld->n_ids + 1, sizeof(*ids));
    if (ids == NULL) {
        conf_no_memory(ld);
        return false;
    }
    ld->ids = ids;
    ids[ld->n_ids] = (struct conf_file_id){st->st_dev, st->st_ino, conf_keep_file(ld, p->path)};
    return ids[ld->n_ids++].name != NULL;
}

/* Queue ${directory}/${name}, or ${name} alone when that is absolute or ${len} is 0. */
static void
add_pending(struct conf_load *ld, const char *directory, size_t len, const char *name,
            const struct conf_place *at, bool is_match)
{
    struct conf_pending *p = calloc(1, sizeof(*p));
    size_t size = len + strlen(name) + 2;

    if (p != NULL)
        p->path = malloc(size);
    if (p == NULL || p->path == NULL) {
        free(p);
        conf_no_memory(ld);
        return;
    }
    if (name[0] == '/' || len == 0)
        snprintf(p->path, size, "%s", name);
    else
        snprintf(p->path, size, "%.*s%s%s", (int)len, directory,
                 directory[len - 1] == '/' ? "" : "/", name);
    p->at = *at;
    p->is_match = is_match;
    TAILQ_INSERT_TAIL(&ld->includes, p, next);
}

static int
is_conf_name(const struct dirent *entry)
{
    size_t len = strlen(entry->d_name);

    return entry->d_name[0] != '.' && len > 5 && strcmp(entry->d_name + len - 5, ".conf") == 0;
}

/* alphasort(3) would follow the locale. */
static int
compare_entries(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static void
add_directory(struct conf_load *ld, const struct conf_pending *p)
{
    struct dirent **entries;
    int n = scandir(p->path, &entries, is_conf_name, compare_entries);

    if (n < 0) {
        path_error(ld, p, "cannot be listed: ", strerror(errno));
        return;
    }
    for (int i = 0; i < n; i++) {
        add_pending(ld, p->path, strlen(p->path), entries[i]->d_name, &p->at, true);
        free(entries[i]);
    }
    free(entries);
}

static void
load_path(struct conf_load *ld, const struct conf_pending *p)
{
    /* O_NONBLOCK: a FIFO without a writer must not keep us. */
    int fd = open(p->path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    struct stat st;
    FILE *in;

    if (fd == -1) {
        path_error(ld, p, "cannot be opened: ", strerror(errno));
        return;
    }
    if (fstat(fd, &st) != 0) {
        path_error(ld, p, "cannot be examined: ", strerror(errno));
    } else if (S_ISDIR(st.st_mode) && !p->is_match) {
        add_directory(ld, p);
    } else if (!S_ISREG(st.st_mode)) {
        path_error(ld, p, S_ISDIR(st.st_mode) ? "is a directory" : "is not a regular file",
                   p->is_match ? "; allowed are files" : "; allowed are files and directories");
    } else if (is_new_file(ld, p, &st)) {
        in = fdopen(fd, "r");
        if (in != NULL) {
            conf_file_parse(ld, in, ld->ids[ld->n_ids - 1].name);
            fclose(in);
            return;
        }
        conf_no_memory(ld);
    }
    close(fd);
}

void
conf_path_load(struct conf_load *ld, const char *path)
{
    struct conf_pendings todo = TAILQ_HEAD_INITIALIZER(todo);
    struct conf_place at = {.file = NULL};
    struct conf_pending *p;

    add_pending(ld, "", 0, path, &at, false);
    TAILQ_CONCAT(&todo, &ld->includes, next);
    while ((p = TAILQ_FIRST(&todo)) != NULL) {
        TAILQ_REMOVE(&todo, p, next);
        load_path(ld, p);
        free(p->path);
        free(p);
        /* What a file includes comes right after it. */
        TAILQ_CONCAT(&ld->includes, &todo, next);
        TAILQ_CONCAT(&todo, &ld->includes, next);
    }
}

/* A directory that is not there holds no match; one that cannot be read might. */
static int
on_glob_error(const char *path, int err)
{
    (void)path;
    return err != ENOENT && err != ENOTDIR;
}

static int
compare_paths(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* ${pattern} below the directory of ${file}, whose own name is no pattern. */
static char *
join_pattern(const char *file, size_t len, const char *pattern)
{
    char *joined = malloc(2 * len + strlen(pattern) + 1), *p = joined;

    if (joined == NULL)
        return NULL;
    for (size_t i = 0; i < len && pattern[0] != '/'; i++) {
        if (strchr("*?[]\\", file[i]) != NULL)
            *p++ = '\\';
        *p++ = file[i];
    }
    memcpy(p, pattern, strlen(pattern) + 1);
    return joined;
}

void
conf_path_include(struct conf_load *ld, const struct conf_place *at, const char *pattern)
{
    const char *slash = strrchr(at->file, '/');
    size_t len = slash == NULL ? 0 : (size_t)(slash - at->file) + 1;
    glob_t found = {.gl_pathc = 0};
    char *joined;
    int rc;

    if (strpbrk(pattern, "*?[") == NULL) {
        add_pending(ld, at->file, len, pattern, at, false);
        return;
    }
    joined = join_pattern(at->file, len, pattern);
    if (joined == NULL) {
        conf_no_memory(ld);
        return;
    }
    rc = glob(joined, GLOB_NOSORT, on_glob_error, &found);
    if (rc == GLOB_NOSPACE)
        conf_no_memory(ld);
    else if (rc == GLOB_ABORTED)
        conf_error(ld, at, "'%s' cannot be listed; its directories must be readable", pattern);
    /* glob(3) itself would sort as the locale does. */
    if (found.gl_pathc > 0)
        qsort(found.gl_pathv, found.gl_pathc, sizeof(char *), compare_paths);
    for (size_t i = 0; i < found.gl_pathc; i++)
        add_pending(ld, "", 0, found.gl_pathv[i], at, true);
    globfree(&found);
    free(joined);
}
