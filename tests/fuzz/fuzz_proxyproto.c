/* SPDX-License-Identifier: MIT */
#include "proxyproto.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/*
 * Any bytes as the begin of a client's stream. However they are cut, the answer is the same; and the addresses of a header that is taken come back from the one
 * that is made of them.
 */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
must(bool is_so)
{
    if (!is_so)
        abort();
}

/* In memory that ends where the bytes do: a sanitizer sees the first one read too many. */
static enum proxyproto_status
decode(const void *data, size_t size, struct proxyproto_header *header)
{
    const char *why = NULL;
    void *copy = malloc(size + 1);
    uint8_t *at = (uint8_t *)copy + 1;
    enum proxyproto_status status;

    must(copy != NULL);
    memcpy(at, data, size);
    status = proxyproto_decode(at, size, header, &why);
    must((status == PROXYPROTO_BAD) == (why != NULL));
    free(copy);
    return status;
}

static void
must_come_back(const struct proxyproto_header *header, enum proxyproto_version version)
{
    char made[PROXYPROTO_ENCODED_MAX];
    size_t len = proxyproto_encode(version, &header->source, &header->dest, made);
    struct proxyproto_header again;

    must(len <= PROXYPROTO_DECIDED);
    must(decode(made, len, &again) == PROXYPROTO_DONE && again.len == len);
    must((again.source.len > 0) == (header->source.len > 0));
    must(addr_equal(&again.source, &header->source) && addr_equal(&again.dest, &header->dest));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct proxyproto_header whole, part;
    enum proxyproto_status status = decode(data, size, &whole), at = PROXYPROTO_MORE;
    size_t n = 0;

    must(status != PROXYPROTO_MORE || size < PROXYPROTO_DECIDED);
    for (; n < size && at == PROXYPROTO_MORE; n++)
        at = decode(data, n, &part);
    if (at != PROXYPROTO_MORE)
        must(at == status && part.len == whole.len && part.source.len == whole.source.len);
    if (status != PROXYPROTO_DONE)
        return 0;
    must(whole.len >= 15 && (whole.len <= PROXYPROTO_DECIDED || data[0] == '\r'));
    must((whole.source.len > 0) == (whole.dest.len > 0));
    must_come_back(&whole, PROXYPROTO_V1);
    must_come_back(&whole, PROXYPROTO_V2);
    return 0;
}
