/* SPDX-License-Identifier: MIT */
#include "pipepool.h"

#include <check.h>
#include <errno.h>
#include <ev.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX 3

static struct ev_loop *loop;
static struct pipepool *pool;

static void
setup(void)
{
    loop = ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV);
    ck_assert_ptr_nonnull(loop);
    pool = pipepool_new(loop, MAX);
    ck_assert_ptr_nonnull(pool);
}

static void
teardown(void)
{
    pipepool_free(pool);
    ev_loop_destroy(loop);
}

static bool
is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0;
}

static struct pipe *
take(void)
{
    struct pipe *pipe = pipepool_take(pool);

    ck_assert_ptr_nonnull(pipe);
    return pipe;
}

static void
stop(struct ev_loop *on, ev_timer *timer, int revents)
{
    (void)timer;
    (void)revents;
    ev_break(on, EVBREAK_ALL);
}

static void
run_for(ev_tstamp seconds)
{
    ev_timer end;

    ev_timer_init(&end, stop, seconds, 0.);
    ev_now_update(loop);
    ev_timer_start(loop, &end);
    ev_run(loop, 0);
    ev_timer_stop(loop, &end);
}

START_TEST(test_pipe_is_empty_non_blocking_and_closed_by_exec)
{
    struct pipe *pipe = take();
    char byte = 'x';

    ck_assert_uint_eq(pipe->fill, 0);
    ck_assert_int_eq(read(pipe->out, &byte, 1), -1);
    ck_assert_int_eq(errno, EAGAIN);
    ck_assert_int_eq(write(pipe->in, "y", 1), 1);
    ck_assert_int_eq(read(pipe->out, &byte, 1), 1);
    ck_assert_int_eq(byte, 'y');
    ck_assert(fcntl(pipe->in, F_GETFD) & FD_CLOEXEC);
    ck_assert(fcntl(pipe->out, F_GETFD) & FD_CLOEXEC);
    pipepool_give(pool, pipe);
}
END_TEST

START_TEST(test_no_more_than_max_are_out)
{
    struct pipe *pipes[MAX];

    for (unsigned i = 0; i < MAX; i++)
        pipes[i] = take();
    ck_assert_ptr_null(pipepool_take(pool));
    pipepool_give(pool, pipes[1]);
    pipes[1] = take();
    ck_assert_ptr_null(pipepool_take(pool));
    for (unsigned i = 0; i < MAX; i++)
        pipepool_give(pool, pipes[i]);
}
END_TEST

START_TEST(test_pipe_given_back_is_taken_again)
{
    struct pipe *first = take();
    int in = first->in, out = first->out;

    pipepool_give(pool, first);
    ck_assert(is_open(in) && is_open(out));
    struct pipe *again = take();
    ck_assert_ptr_eq(again, first);
    ck_assert_int_eq(again->in, in);
    ck_assert_int_eq(again->out, out);
    pipepool_give(pool, again);
}
END_TEST

START_TEST(test_pipe_with_bytes_is_closed)
{
    struct pipe *pipes[MAX];

    for (unsigned i = 0; i < MAX; i++)
        pipes[i] = take();
    int in = pipes[0]->in, out = pipes[0]->out;
    ck_assert_int_eq(write(in, "secret", 6), 6);
    pipes[0]->fill = 6;
    pipepool_give(pool, pipes[0]);
    ck_assert(!is_open(in) && !is_open(out));
    pipes[0] = take(); /* its place is free */
    ck_assert_uint_eq(pipes[0]->fill, 0);
    ck_assert_int_eq(read(pipes[0]->out, &(char){0}, 1), -1);
    ck_assert_ptr_null(pipepool_take(pool));
    for (unsigned i = 0; i < MAX; i++)
        pipepool_give(pool, pipes[i]);
}
END_TEST

START_TEST(test_idle_pipes_are_closed_after_a_while)
{
    struct pipe *first = take(), *second = take();
    int in = first->in, out = first->out, other = second->in;

    pipepool_give(pool, first);
    pipepool_give(pool, second);
    run_for(PIPEPOOL_IDLE_S * 0.5);
    ck_assert_msg(is_open(in) && is_open(other), "too early");
    run_for(PIPEPOOL_IDLE_S * 2.5);
    ck_assert(!is_open(in) && !is_open(out) && !is_open(other));
    ck_assert_msg(!ev_run(loop, EVRUN_NOWAIT), "the timer goes on without a pipe");
    pipepool_give(pool, take()); /* and begins again with the next */
    ck_assert(ev_run(loop, EVRUN_NOWAIT));
}
END_TEST

START_TEST(test_pipe_that_is_out_is_never_closed)
{
    struct pipe *held = take(), *idle = take();
    int closed = idle->in;

    pipepool_give(pool, idle);
    run_for(PIPEPOOL_IDLE_S * 2.5);
    ck_assert(!is_open(closed));
    ck_assert(is_open(held->in) && is_open(held->out));
    pipepool_give(pool, held);
    ck_assert(is_open(held->in));
    run_for(PIPEPOOL_IDLE_S * 2.5);
    ck_assert(!ev_run(loop, EVRUN_NOWAIT));
}
END_TEST

static ino_t
inode(const struct pipe *pipe)
{
    struct stat st;

    ck_assert_int_eq(fstat(pipe->in, &st), 0);
    return st.st_ino;
}

static void
use(struct ev_loop *on, ev_timer *timer, int revents)
{
    (void)on;
    (void)timer;
    (void)revents;
    pipepool_give(pool, take());
}

START_TEST(test_pipes_in_use_stay)
{
    struct pipe *pipe = take();
    ino_t first = inode(pipe);
    ev_timer often;

    pipepool_give(pool, pipe);
    ev_timer_init(&often, use, 0., PIPEPOOL_IDLE_S / 10);
    ev_timer_start(loop, &often);
    run_for(PIPEPOOL_IDLE_S * 2.5);
    ev_timer_stop(loop, &often);
    pipe = take();
    ck_assert_uint_eq(inode(pipe), first);
    pipepool_give(pool, pipe);
}
END_TEST

START_TEST(test_without_descriptors_there_is_none)
{
    struct rlimit limit, none;

    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    none = limit;
    none.rlim_cur = 0;
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
    ck_assert_ptr_null(pipepool_take(pool));
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    for (unsigned i = 0; i < MAX; i++)
        pipepool_give(pool, take()); /* a failure takes no place */
    struct pipe *pipes[MAX];
    for (unsigned i = 0; i < MAX; i++)
        pipes[i] = take();
    for (unsigned i = 0; i < MAX; i++)
        pipepool_give(pool, pipes[i]);
}
END_TEST

START_TEST(test_free_closes_idle_pipes)
{
    struct pipepool *other = pipepool_new(loop, 1);
    struct pipe *pipe = pipepool_take(other);

    ck_assert_ptr_nonnull(pipe);
    int in = pipe->in, out = pipe->out;
    pipepool_give(other, pipe);
    pipepool_free(other);
    ck_assert(!is_open(in) && !is_open(out));
    pipepool_free(NULL);
}
END_TEST

int
main(void)
{
    TCase *tc = tcase_create("pipepool");
    Suite *suite = suite_create("pipepool");
    SRunner *runner;
    int failed;

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 30);
    tcase_add_test(tc, test_pipe_is_empty_non_blocking_and_closed_by_exec);
    tcase_add_test(tc, test_no_more_than_max_are_out);
    tcase_add_test(tc, test_pipe_given_back_is_taken_again);
    tcase_add_test(tc, test_pipe_with_bytes_is_closed);
    tcase_add_test(tc, test_idle_pipes_are_closed_after_a_while);
    tcase_add_test(tc, test_pipe_that_is_out_is_never_closed);
    tcase_add_test(tc, test_pipes_in_use_stay);
    tcase_add_test(tc, test_without_descriptors_there_is_none);
    tcase_add_test(tc, test_free_closes_idle_pipes);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed > 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
