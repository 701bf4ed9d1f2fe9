/* SPDX-License-Identifier: MIT */
#include "edge.h"

#include <check.h>
#include <ev.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define MANY 200 /* more than one batch */

struct watched {
    struct edge edge; /* first */
    int ends[2];
    unsigned calls;
    uint32_t events;
};

static struct ev_loop *loop;
static struct edge_set *set;
static struct watched watched[MANY];
static unsigned order[4 * MANY], n_called;

static struct watched *
called(struct edge *edge, uint32_t events)
{
    struct watched *w = (struct watched *)edge;

    ck_assert_uint_lt(n_called, 4 * MANY);
    order[n_called++] = (unsigned)(w - watched);
    w->calls++;
    w->events = events;
    return w;
}

static void
on_event(struct edge *edge, uint32_t events)
{
    (void)called(edge, events);
}

static void
on_event_forget_all(struct edge *edge, uint32_t events)
{
    (void)called(edge, events);
    for (unsigned i = 0; i < MANY; i++)
        edge_del(set, &watched[i].edge);
}

static void
on_event_again(struct edge *edge, uint32_t events)
{
    (void)called(edge, events);
    edge_again(set, edge);
}

static void
add(unsigned i, uint32_t events, void (*callback)(struct edge *edge, uint32_t events))
{
    ck_assert_int_eq(edge_add(set, &watched[i].edge, watched[i].ends[0], events, callback), 0);
}

static void
poke(unsigned i)
{
    ck_assert_int_eq(write(watched[i].ends[1], "x", 1), 1);
}

static void
setup(void)
{
    memset(watched, 0, sizeof(watched));
    n_called = 0;
    loop = ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV);
    ck_assert_ptr_nonnull(loop);
    set = edge_set_new(loop);
    ck_assert_ptr_nonnull(set);
    for (unsigned i = 0; i < MANY; i++)
        ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, watched[i].ends), 0);
}

static void
teardown(void)
{
    edge_set_free(set);
    ev_loop_destroy(loop);
}

/* Whatever is there now, and nothing else. */
static void
turn(void)
{
    ev_run(loop, EVRUN_NOWAIT);
}

START_TEST(test_first_come_first_served)
{
    for (unsigned i = 0; i < MANY; i++)
        add(i, EPOLLIN | EPOLLET, on_event);
    for (unsigned i = 0; i < MANY; i++)
        poke((i * 7) % MANY);
    turn();
    ck_assert_uint_eq(n_called, MANY);
    for (unsigned i = 0; i < MANY; i++)
        ck_assert_uint_eq(order[i], (i * 7) % MANY);
}
END_TEST

START_TEST(test_an_edge_is_told_once_and_a_level_while_it_holds)
{
    add(0, EPOLLIN | EPOLLET, on_event);
    add(1, EPOLLIN, on_event);
    poke(0);
    poke(1);
    for (unsigned i = 1; i <= 3; i++) {
        turn();
        ck_assert_uint_ge(watched[1].calls, i);
        ck_assert_uint_le(watched[1].calls, 4 * i); /* and then the rest of the loop has its turn */
    }
    ck_assert_uint_eq(watched[0].calls, 1);
    unsigned before = watched[1].calls;
    char byte;
    ck_assert_int_eq(read(watched[1].ends[0], &byte, 1), 1);
    poke(0);
    turn();
    ck_assert_uint_eq(watched[0].calls, 2);
    ck_assert_uint_eq(watched[1].calls, before);
}
END_TEST

START_TEST(test_what_holds_already_is_told)
{
    poke(0);
    add(0, EPOLLIN | EPOLLET, on_event);
    turn();
    ck_assert_uint_eq(watched[0].events, EPOLLIN);
    ck_assert_int_eq(edge_mod(set, &watched[0].edge, EPOLLIN | EPOLLOUT | EPOLLET), 0);
    turn();
    ck_assert_uint_eq(watched[0].events, EPOLLIN | EPOLLOUT);
    turn();
    ck_assert_uint_eq(watched[0].calls, 2);
}
END_TEST

START_TEST(test_a_hangup_is_told_to_who_asked_for_nothing)
{
    add(0, EPOLLET, on_event);
    close(watched[0].ends[1]);
    turn();
    ck_assert_uint_eq(watched[0].events, EPOLLHUP);
}
END_TEST

START_TEST(test_no_call_after_del_in_the_same_batch)
{
    for (unsigned i = 0; i < MANY; i++) {
        add(i, EPOLLIN | EPOLLET, on_event_forget_all);
        poke(i);
    }
    turn();
    turn();
    ck_assert_uint_eq(n_called, 1);
    ck_assert_int_eq(watched[0].edge.fd, -1);
}
END_TEST

/* As in a process that has been forked and is not yet another program. */
START_TEST(test_nobody_is_told_of_a_closed_socket_of_which_there_is_a_copy)
{
    int fd = watched[0].ends[0], copy = dup(fd);
    struct edge moved;

    ck_assert_int_ge(copy, 0);
    add(0, EPOLLIN, on_event); /* a level, which goes on for as long as the copy */
    edge_forget(set, &watched[0].edge);
    ck_assert_int_eq(close(fd), 0);
    poke(0);
    turn();
    ck_assert_uint_eq(n_called, 0);

    /* Nor is who has its number now. */
    ck_assert_int_eq(dup2(watched[1].ends[0], fd), fd);
    watched[1].ends[0] = fd;
    add(1, EPOLLIN | EPOLLET, on_event);
    turn();
    ck_assert_uint_eq(n_called, 0);
    poke(1);
    turn();
    ck_assert_uint_eq(watched[1].calls, 1);
    ck_assert_int_eq(edge_mod(set, &watched[1].edge, EPOLLIN | EPOLLOUT | EPOLLET), 0);
    turn();
    ck_assert_uint_eq(watched[1].calls, 2);
    edge_move(set, &watched[1].edge, &moved, on_event);
    edge_move(set, &moved, &watched[1].edge, on_event);
    poke(1);
    turn();
    ck_assert_uint_eq(n_called, 3);
    close(copy);
}
END_TEST

START_TEST(test_forget_takes_out_who_asked_to_be_called_again)
{
    for (unsigned i = 0; i < 3; i++) {
        add(i, EPOLLIN | EPOLLET, on_event);
        edge_again(set, &watched[i].edge);
    }
    edge_again(set, &watched[0].edge); /* no second place */
    edge_forget(set, &watched[1].edge);
    turn();
    turn();
    ck_assert_uint_eq(n_called, 2);
    ck_assert_uint_eq(order[0], 0);
    ck_assert_uint_eq(order[1], 2);
    ck_assert_uint_eq(watched[0].events, 0);
}
END_TEST

START_TEST(test_who_asks_again_gets_one_call_a_turn_and_starves_nobody)
{
    add(0, EPOLLIN | EPOLLET, on_event_again);
    add(1, EPOLLIN | EPOLLET, on_event);
    add(2, EPOLLIN | EPOLLET, on_event_again);
    edge_again(set, &watched[0].edge);
    edge_again(set, &watched[2].edge);
    for (unsigned i = 1; i <= 5; i++) {
        poke(1);
        turn();
        ck_assert_uint_eq(watched[0].calls, i);
        ck_assert_uint_eq(watched[1].calls, i);
        ck_assert_uint_eq(watched[2].calls, i);
    }
}
END_TEST

static void
on_too_late(struct ev_loop *l, ev_timer *timer, int revents)
{
    (void)timer;
    (void)revents;
    ev_break(l, EVBREAK_ALL);
}

START_TEST(test_the_loop_does_not_sleep_while_somebody_waits)
{
    ev_timer too_late;

    add(0, EPOLLIN | EPOLLET, on_event);
    edge_again(set, &watched[0].edge);
    ev_timer_init(&too_late, on_too_late, 3600., 0.);
    ev_timer_start(loop, &too_late);
    ev_run(loop, EVRUN_ONCE);
    ck_assert_uint_eq(watched[0].calls, 1);
    ev_timer_stop(loop, &too_late);
}
END_TEST

START_TEST(test_errors)
{
    int fd = open("/dev/null", O_RDONLY);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(edge_add(set, &watched[0].edge, fd, EPOLLIN, on_event), -1); /* EPERM */
    ck_assert_int_eq(watched[0].edge.fd, -1);
    edge_del(set, &watched[0].edge);
    edge_set_free(NULL);
    close(fd);
}
END_TEST

int
main(void)
{
    Suite *suite = suite_create("edge");
    TCase *tcase = tcase_create("edge");
    SRunner *runner;
    int failed;

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, test_first_come_first_served);
    tcase_add_test(tcase, test_an_edge_is_told_once_and_a_level_while_it_holds);
    tcase_add_test(tcase, test_what_holds_already_is_told);
    tcase_add_test(tcase, test_a_hangup_is_told_to_who_asked_for_nothing);
    tcase_add_test(tcase, test_no_call_after_del_in_the_same_batch);
    tcase_add_test(tcase, test_nobody_is_told_of_a_closed_socket_of_which_there_is_a_copy);
    tcase_add_test(tcase, test_forget_takes_out_who_asked_to_be_called_again);
    tcase_add_test(tcase, test_who_asks_again_gets_one_call_a_turn_and_starves_nobody);
    tcase_add_test(tcase, test_the_loop_does_not_sleep_while_somebody_waits);
    tcase_add_test(tcase, test_errors);
    suite_add_tcase(suite, tcase);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
