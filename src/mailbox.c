/* SPDX-License-Identifier: MIT */
#include "mailbox.h"

#include <ev.h>
#include <stddef.h>
#include <stdlib.h>

struct mailbox {
    ev_async async;
    struct ev_loop *loop;
    atomic_uint flags;
    _Atomic(struct mail *) letters; /* the newest first */
    void (*on_flags)(void *arg, unsigned flags);
    void *arg;
};

/* Takes all letters, the oldest first. */
static struct mail *
take_letters(struct mailbox *box)
{
    struct mail *newest = atomic_exchange(&box->letters, NULL), *oldest = NULL, *next;

    for (; newest; newest = next) {
        next = newest->next;
        newest->next = oldest;
        oldest = newest;
    }
    return oldest;
}

static void
on_async(struct ev_loop *loop, ev_async *async, int revents)
{
    struct mailbox *box = (struct mailbox *)((char *)async - offsetof(struct mailbox, async));
    struct mail *mail = take_letters(box), *next;

    (void)loop;
    (void)revents;
    for (; mail; mail = next) {
        next = mail->next;
        mail->deliver(mail);
        free(mail);
    }
    unsigned flags = atomic_exchange(&box->flags, 0);
    if (flags != 0)
        box->on_flags(box->arg, flags);
}

struct mailbox *
mailbox_new(struct ev_loop *loop, void (*on_flags)(void *arg, unsigned flags), void *arg)
{
    struct mailbox *box = calloc(1, sizeof(*box));

    if (!box)
        return NULL;
    box->loop = loop;
    box->on_flags = on_flags;
    box->arg = arg;
    atomic_init(&box->flags, 0);
    atomic_init(&box->letters, NULL);
    ev_async_init(&box->async, on_async);
    ev_async_start(loop, &box->async);
    return box;
}

void
mailbox_free(struct mailbox *box)
{
    struct mail *mail, *next;

    if (!box)
        return;
    ev_async_stop(box->loop, &box->async);
    for (mail = take_letters(box); mail; mail = next) {
        next = mail->next;
        if (mail->discard)
            mail->discard(mail);
        free(mail);
    }
    free(box);
}

void
mailbox_raise(struct mailbox *box, unsigned flags)
{
    if ((atomic_fetch_or(&box->flags, flags) & flags) != flags)
        ev_async_send(box->loop, &box->async);
}

void
mailbox_post(struct mailbox *box, struct mail *mail)
{
    mail->next = atomic_load_explicit(&box->letters, memory_order_relaxed);
    while (!atomic_compare_exchange_weak(&box->letters, &mail->next, mail))
        continue;
    ev_async_send(box->loop, &box->async);
}
