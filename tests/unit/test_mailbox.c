/* SPDX-License-Identifier: MIT */
#include "mailbox.h"

#include <check.h>
#include <ev.h>
#include <pthread.h>
#include <stdlib.h>

#define THREADS 4
#define LETTERS 5000
#define SLOTS   (THREADS * LETTERS)
#define LAST    0x80U

struct letter {
    struct mail mail; /* first */
    unsigned sender, number;
};

static struct ev_loop *loop;
static struct mailbox *box;
static struct letter seen[SLOTS];
static unsigned n_seen, n_calls, all_flags;

static void
on_flags(void *arg, unsigned flags)
{
    ck_assert_ptr_eq(arg, &all_flags);
    n_calls++;
    all_flags |= flags;
}

static void
deliver(struct mail *mail)
{
    ck_assert_uint_lt(n_seen, SLOTS);
    seen[n_seen++] = *(struct letter *)mail;
}

static void
post(struct mailbox *to, unsigned sender, unsigned number, void (*deliver_it)(struct mail *mail))
{
    struct letter *letter = malloc(sizeof(*letter));

    ck_assert_ptr_nonnull(letter);
    *letter = (struct letter){.mail.deliver = deliver_it, .sender = sender, .number = number};
    mailbox_post(to, &letter->mail);
}

static void
setup(void)
{
    n_seen = n_calls = all_flags = 0;
    loop = ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV);
    ck_assert_ptr_nonnull(loop);
    box = mailbox_new(loop, on_flags, &all_flags);
    ck_assert_ptr_nonnull(box);
}

static void
teardown(void)
{
    mailbox_free(box);
    ev_loop_destroy(loop);
}

/* Whatever is there now, and nothing else. */
static void
turn(void)
{
    ev_run(loop, EVRUN_NOWAIT);
}

START_TEST(test_letters_arrive_in_order)
{
    for (unsigned i = 0; i < 100; i++)
        post(box, 0, i, deliver);
    ck_assert_uint_eq(n_seen, 0); /* not on the poster's stack */
    turn();
    ck_assert_uint_eq(n_seen, 100);
    for (unsigned i = 0; i < 100; i++)
        ck_assert_uint_eq(seen[i].number, i);
    ck_assert_msg(n_calls == 0, "no flag was raised");
    turn();
    ck_assert_uint_eq(n_seen, 100);
}
END_TEST

START_TEST(test_flags_are_coalesced)
{
    mailbox_raise(box, 1);
    mailbox_raise(box, 4);
    mailbox_raise(box, 1);
    mailbox_raise(box, 5);
    ck_assert_uint_eq(n_calls, 0);
    turn();
    ck_assert_uint_eq(n_calls, 1);
    ck_assert_uint_eq(all_flags, 5);
    turn();
    ck_assert_uint_eq(n_calls, 1);
}
END_TEST

START_TEST(test_flag_may_be_raised_again)
{
    for (unsigned i = 1; i <= 3; i++) {
        mailbox_raise(box, 2);
        turn();
        ck_assert_uint_eq(n_calls, i);
    }
}
END_TEST

static void
raise_again(void *arg, unsigned flags)
{
    struct mailbox **again = arg;

    n_calls++;
    if (flags == 1)
        mailbox_raise(*again, 2);
    else
        ck_assert_uint_eq(flags, 2);
}

START_TEST(test_flag_raised_by_the_callee_of_one_is_called)
{
    struct mailbox *again = NULL;

    again = mailbox_new(loop, raise_again, &again);
    mailbox_raise(again, 1);
    turn();
    turn();
    ck_assert_uint_eq(n_calls, 2);
    mailbox_free(again);
}
END_TEST

static void
answer(struct mail *mail)
{
    const struct letter *letter = (const struct letter *)mail;

    deliver(mail);
    if (letter->number < 3)
        post(box, letter->sender, letter->number + 1, answer);
    mailbox_raise(box, 1U << letter->number);
}

START_TEST(test_letter_posted_by_a_delivery_is_delivered)
{
    post(box, 0, 0, answer);
    for (unsigned i = 0; i < 4; i++)
        turn();
    ck_assert_uint_eq(n_seen, 4);
    ck_assert_uint_eq(all_flags, 15);
}
END_TEST

START_TEST(test_free_throws_undelivered_letters_away)
{
    struct mailbox *other = mailbox_new(loop, on_flags, &all_flags);

    for (unsigned i = 0; i < 10; i++)
        post(other, 0, i, deliver);
    mailbox_raise(other, 1);
    mailbox_free(other);
    turn();
    ck_assert_uint_eq(n_seen, 0);
    ck_assert_uint_eq(n_calls, 0);
    mailbox_free(NULL);
}
END_TEST

static void
discard(struct mail *mail)
{
    ck_assert_uint_eq(((struct letter *)mail)->number, n_calls);
    n_calls++;
}

START_TEST(test_letters_thrown_away_are_discarded_in_order)
{
    struct mailbox *other = mailbox_new(loop, on_flags, &all_flags);

    for (unsigned i = 0; i < 10; i++) {
        struct letter *letter = malloc(sizeof(*letter));
        ck_assert_ptr_nonnull(letter);
        *letter = (struct letter){.mail = {.deliver = deliver, .discard = discard}, .number = i};
        mailbox_post(other, &letter->mail);
    }
    mailbox_free(other);
    ck_assert_uint_eq(n_calls, 10);
    ck_assert_uint_eq(n_seen, 0);
}
END_TEST

START_TEST(test_letter_that_was_delivered_is_not_discarded)
{
    struct letter *letter = malloc(sizeof(*letter));

    ck_assert_ptr_nonnull(letter);
    *letter = (struct letter){.mail = {.deliver = deliver, .discard = discard}};
    mailbox_post(box, &letter->mail);
    turn();
    ck_assert_uint_eq(n_seen, 1);
    ck_assert_uint_eq(n_calls, 0);
}
END_TEST

static atomic_uint posted;

/* Letters and flags by turns; who posts the last letter of all says so. */
static void *
post_many(void *arg)
{
    unsigned sender = *(const unsigned *)arg;

    for (unsigned i = 0; i < LETTERS; i++) {
        post(box, sender, i, deliver);
        mailbox_raise(box, 1U << sender);
        if (atomic_fetch_add(&posted, 1) + 1 == SLOTS)
            mailbox_raise(box, LAST);
    }
    return NULL;
}

static void
assert_in_order_by_sender(void)
{
    unsigned next[THREADS] = {0};

    ck_assert_uint_eq(n_seen, SLOTS);
    for (unsigned i = 0; i < SLOTS; i++)
        ck_assert_uint_eq(seen[i].number, next[seen[i].sender]++);
}

START_TEST(test_letters_of_several_threads_all_arrive_in_order_by_sender)
{
    pthread_t threads[THREADS];
    unsigned senders[THREADS];

    for (unsigned i = 0; i < THREADS; i++) {
        senders[i] = i;
        ck_assert_int_eq(pthread_create(&threads[i], NULL, post_many, &senders[i]), 0);
    }
    /* A wake-up that is lost hangs here, and the test's timeout tells. */
    while (!(all_flags & LAST) || n_seen < SLOTS)
        ev_run(loop, EVRUN_ONCE);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    turn();
    assert_in_order_by_sender();
    ck_assert_uint_eq(all_flags, LAST | ((1U << THREADS) - 1));
    ck_assert_uint_le(n_calls, SLOTS + 1);
}
END_TEST

int
main(void)
{
    TCase *tc = tcase_create("mailbox");
    Suite *suite = suite_create("mailbox");
    SRunner *runner;
    int failed;

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 30);
    tcase_add_test(tc, test_letters_arrive_in_order);
    tcase_add_test(tc, test_flags_are_coalesced);
    tcase_add_test(tc, test_flag_may_be_raised_again);
    tcase_add_test(tc, test_flag_raised_by_the_callee_of_one_is_called);
    tcase_add_test(tc, test_letter_posted_by_a_delivery_is_delivered);
    tcase_add_test(tc, test_free_throws_undelivered_letters_away);
    tcase_add_test(tc, test_letters_thrown_away_are_discarded_in_order);
    tcase_add_test(tc, test_letter_that_was_delivered_is_not_discarded);
    tcase_add_test(tc, test_letters_of_several_threads_all_arrive_in_order_by_sender);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed > 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
