/* SPDX-License-Identifier: MIT */
#ifndef REDIAL_MAILBOX_H
#define REDIAL_MAILBOX_H

#include <stdatomic.h>
#include <stdbool.h>

struct ev_loop;
struct mailbox;

/* How other threads talk to a loop: flags and letters, neither of which ever waits. */

/* A letter, the first member of what it carries. */
struct mail {
    struct mail *next;
    /* Called on the loop of the mailbox; the letter is freed after it. */
    void (*deliver)(struct mail *mail);
    void (*discard)(
        struct mail *mail); /* called instead when it is thrown away; NULL: nothing is to be done */
};

/**
 * mailbox_new(loop, on_flags, arg):
 * From ${loop}, ${on_flags}(${arg}, flags) is called with every flag raised since the last time. Returns a new mailbox for mailbox_free(), or NULL with
 * errno ENOMEM.
 */
struct mailbox *mailbox_new(struct ev_loop *loop, void (*on_flags)(void *arg, unsigned flags),
                            void *arg) __attribute__((warn_unused_result));

/** mailbox_free(mailbox): letters not delivered are thrown away; no thread may post any more. NULL is fine. */
void mailbox_free(struct mailbox *mailbox);

/** mailbox_raise(mailbox, flags): raise the bits of ${flags}. Any thread. */
void mailbox_raise(struct mailbox *mailbox, unsigned flags);

/** mailbox_post(mailbox, mail): post ${mail}, from malloc(), which is taken. Letters of one thread arrive in order. Any thread. */
void mailbox_post(struct mailbox *mailbox, struct mail *mail);

#endif
