/* SPDX-License-Identifier: MIT */
#include "admin_internal.h"

#include "json.h"
#include "page.h"

#include <stdlib.h>
#include <string.h>

/* An answer from its making until it is out. */
struct body {
    struct admin *admin;
    char *text;
    size_t size;
};

void
admin_draft_open(struct admin_draft *d)
{
    d->text = NULL;
    d->out = open_memstream(&d->text, &d->size);
}

bool
admin_draft_close(struct admin_draft *d)
{
    bool is_whole = d->out && !ferror(d->out);

    if (d->out && fclose(d->out) != 0)
        is_whole = false;
    if (!is_whole) {
        free(d->text);
        d->text = NULL;
    }
    return is_whole;
}

static void
body_free(void *arg)
{
    struct body *body = arg;

    body->admin->n_body_bytes -= body->size;
    free(body->text);
    free(body);
}

/* No proxy on the way and no browser is to keep it, nor to take it for something else. */
static struct MHD_Response *
with_headers(struct MHD_Response *r, const char *type)
{
    if (!r)
        return NULL;
    (void)MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    (void)MHD_add_response_header(r, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    (void)MHD_add_response_header(r, "X-Content-Type-Options", "nosniff");
    return r;
}

struct MHD_Response *
admin_body_make(struct admin *a, char *text, size_t size, const char *type)
{
    struct body *body = malloc(sizeof(*body));
    struct MHD_Response *r = NULL;

    if (body) {
        *body = (struct body){a, text, size};
        r = MHD_create_response_from_buffer_with_free_callback_cls(size, text, body_free, body);
    }
    if (!r) {
        free(body);
        free(text);
        return NULL;
    }
    a->n_body_bytes += size;
    return with_headers(r, type);
}

struct MHD_Response *
admin_body_static(const char *text, const char *type)
{
    return with_headers(MHD_create_response_from_buffer(strlen(text), (void *)text,
                                                        MHD_RESPMEM_PERSISTENT),
                        type);
}

/* A string for each line. */
static void
put_lines(struct json *j, const char *lines)
{
    char line[1024];

    for (size_t len; *lines != '\0'; lines += len + (lines[len] == '\n')) {
        len = strcspn(lines, "\n");
        snprintf(line, sizeof(line), "%.*s", (int)len, lines);
        json_str(j, NULL, line);
    }
}

struct MHD_Response *
admin_body_refusal(struct admin *a, const char *errors)
{
    struct admin_draft d;

    admin_draft_open(&d);
    if (d.out) {
        struct json j = {.out = d.out};

        json_open(&j, NULL, '{');
        json_bool(&j, "ok", false);
        json_open(&j, "errors", '[');
        put_lines(&j, errors);
        json_close(&j, ']');
        json_close(&j, '}');
        putc('\n', d.out);
    }
    return admin_draft_close(&d) ? admin_body_make(a, d.text, d.size, ADMIN_JSON) : NULL;
}

/* It brings all that it needs, and asks nobody but us. */
struct MHD_Response *
admin_body_page(void)
{
    struct MHD_Response *r =
        MHD_create_response_from_buffer(page_html_size, (void *)page_html, MHD_RESPMEM_PERSISTENT);

    if (!with_headers(r, ADMIN_HTML))
        return NULL;
    (void)MHD_add_response_header(r, "Content-Security-Policy",
                                  "default-src 'none'; script-src 'unsafe-inline'; style-src "
                                  "'unsafe-inline'; img-src data:; connect-src 'self'; base-uri "
                                  "'none'; form-action 'none'; frame-ancestors 'none'");
    return r;
}
