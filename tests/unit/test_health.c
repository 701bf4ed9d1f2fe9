/* SPDX-License-Identifier: MIT */
#include "health.h"

#include <check.h>
#include <limits.h>
#include <stdlib.h>

static const struct health_opts opts = {.backoff_min_ms = 100, .backoff_max_ms = 5000};

static struct health
begun(void)
{
    struct health h;

    health_init(&h);
    health_begin(&h);
    return h;
}

static struct health
up(void)
{
    struct health h = begun();

    health_on_connected(&h);
    return h;
}

static struct health
down(void)
{
    struct health h = begun();

    health_on_failed(&h, &opts, 0);
    health_on_failed(&h, &opts, 0);
    ck_assert_int_eq(h.state, HEALTH_DOWN);
    return h;
}

START_TEST(test_states_have_names)
{
    ck_assert_str_eq(health_str(HEALTH_UNKNOWN), "unknown");
    ck_assert_str_eq(health_str(HEALTH_DIALING), "dialing");
    ck_assert_str_eq(health_str(HEALTH_UP), "up");
    ck_assert_str_eq(health_str(HEALTH_DOWN), "down");
    ck_assert_str_eq(health_str((enum health_state)77), "invalid");
}
END_TEST

START_TEST(test_begin_moves_only_from_unknown)
{
    struct health h, u = up(), d = down();

    health_init(&h);
    ck_assert_int_eq(h.state, HEALTH_UNKNOWN);
    ck_assert_uint_eq(h.failures, 0);
    ck_assert_uint_eq(h.hangups, 0);
    health_begin(&h);
    health_begin(&u);
    health_begin(&d);
    ck_assert_int_eq(h.state, HEALTH_DIALING);
    ck_assert_int_eq(u.state, HEALTH_UP);
    ck_assert_int_eq(d.state, HEALTH_DOWN);
}
END_TEST

START_TEST(test_first_retry_is_at_once_and_the_second_failure_is_down)
{
    struct health cases[3] = {{.state = HEALTH_UNKNOWN}, begun(), up()};

    for (int i = 0; i < 3; i++) {
        struct health *h = &cases[i];

        ck_assert_uint_eq(health_on_failed(h, &opts, UINT32_MAX), 0);
        ck_assert_int_eq(h->state, HEALTH_DIALING);
        ck_assert_uint_eq(h->failures, 1);
        ck_assert_uint_eq(health_on_failed(h, &opts, UINT32_MAX), 200);
        ck_assert_int_eq(h->state, HEALTH_DOWN);
        ck_assert_uint_eq(h->failures, 2);
    }
}
END_TEST

START_TEST(test_retry_that_connects_is_up)
{
    struct health h = begun();

    health_on_failed(&h, &opts, 0);
    health_on_connected(&h);
    ck_assert_int_eq(h.state, HEALTH_UP);
    h = down();
    health_on_connected(&h);
    ck_assert_int_eq(h.state, HEALTH_UP);
}
END_TEST

static const struct {
    uint64_t min, max;
    unsigned n; /* which pause */
    uint64_t top;
} bounds[] = {
    {100, 5000, 1, 200},
    {100, 5000, 2, 400},
    {100, 5000, 3, 800},
    {100, 5000, 4, 1600},
    {100, 5000, 5, 3200},
    {100, 5000, 6, 5000},
    {100, 5000, 7, 5000},
    {100, 5000, 200, 5000},
    {100, 800, 3, 800},
    {100, 799, 3, 799},
    {100, 801, 4, 801},
    {100, 150, 1, 150},
    {100, 100, 1, 100},
    {1, 1, 50, 1},
    {1, UINT64_MAX / 2, 62, UINT64_C(1) << 62},
    {1, UINT64_MAX / 2, 63, UINT64_MAX / 2},
    {1, UINT64_MAX / 2, 64, UINT64_MAX / 2},
    {1, UINT64_MAX / 2, UINT_MAX - 1, UINT64_MAX / 2},
    {UINT64_MAX / 2, UINT64_MAX / 2, 1, UINT64_MAX / 2},
};

START_TEST(test_pause_is_drawn_between_its_bounds)
{
    struct health_opts o = {bounds[_i].min, bounds[_i].max};
    struct health h = {.state = HEALTH_DOWN, .failures = bounds[_i].n};
    uint64_t least = health_on_failed(&h, &o, 0), most, span = bounds[_i].top - bounds[_i].min;

    h.failures = bounds[_i].n;
    most = health_on_failed(&h, &o, UINT32_MAX);
    ck_assert_uint_eq(least, bounds[_i].min);
    ck_assert_uint_le(most, bounds[_i].top);
    /* A 32-bit random number reaches the top of a span below 2^32, and all but 2^-32 of a longer
     * one. */
    ck_assert_uint_ge(most, bounds[_i].top - (span >> 32) - (span >> 32 != 0));
}
END_TEST

START_TEST(test_draw_is_even)
{
    struct health_opts o = {.backoff_min_ms = 2, .backoff_max_ms = 5};
    unsigned hits[6] = {0};

    for (uint64_t random = 0; random <= UINT32_MAX; random += 1 << 20) {
        struct health h = {.state = HEALTH_DOWN, .failures = 5};
        uint64_t pause = health_on_failed(&h, &o, (uint32_t)random);

        ck_assert_uint_ge(pause, 2);
        ck_assert_uint_le(pause, 5);
        hits[pause]++;
    }
    for (int i = 2; i <= 5; i++)
        ck_assert_uint_eq(hits[i], 1024);
}
END_TEST

START_TEST(test_pause_never_exceeds_max)
{
    struct health h = begun();

    health_on_failed(&h, &opts, 0);
    for (uint32_t i = 0; i < 200; i++) {
        uint64_t pause = health_on_failed(&h, &opts, i % 2 ? UINT32_MAX : i * UINT32_C(2654435761));

        ck_assert_uint_ge(pause, opts.backoff_min_ms);
        ck_assert_uint_le(pause, opts.backoff_max_ms);
        ck_assert_int_eq(h.state, HEALTH_DOWN);
    }
    ck_assert_uint_eq(h.failures, 201);
}
END_TEST

START_TEST(test_counters_stop_at_their_end)
{
    struct health h = {.state = HEALTH_DOWN, .failures = UINT_MAX, .hangups = UINT_MAX};

    ck_assert_uint_eq(health_on_hung_up(&h, &opts, UINT32_MAX), 5000);
    ck_assert_uint_eq(h.failures, UINT_MAX);
    ck_assert_uint_eq(h.hangups, UINT_MAX);
}
END_TEST

START_TEST(test_mere_connect_does_not_clear_the_backoff)
{
    struct health h = down();

    health_on_connected(&h);
    ck_assert_uint_eq(h.failures, 2);
    ck_assert_uint_eq(health_on_failed(&h, &opts, UINT32_MAX), 400);
    ck_assert_int_eq(h.state, HEALTH_DOWN);
}
END_TEST

START_TEST(test_stable_connection_clears_the_backoff)
{
    struct health h = down();

    health_on_connected(&h);
    health_on_stable(&h);
    ck_assert_uint_eq(h.failures, 0);
    ck_assert_uint_eq(health_on_failed(&h, &opts, UINT32_MAX), 0);
    ck_assert_int_eq(h.state, HEALTH_DIALING);
}
END_TEST

START_TEST(test_down_server_gets_no_retry_at_once)
{
    struct health h = down();

    health_on_stable(&h); /* an old session of a server that cannot be dialled */
    ck_assert_uint_eq(health_on_failed(&h, &opts, 0), 100);
    ck_assert_uint_eq(h.failures, 1);
    ck_assert_int_eq(h.state, HEALTH_DOWN);
    ck_assert_uint_eq(health_on_failed(&h, &opts, UINT32_MAX), 200);
}
END_TEST

START_TEST(test_third_hang_up_in_a_row_is_down)
{
    struct health h = up();

    for (unsigned i = 1; i < HEALTH_HANGUPS_MAX; i++) {
        health_on_hung_up(&h, &opts, 0);
        health_on_connected(&h);
        ck_assert_int_eq(h.state, HEALTH_UP);
        ck_assert_uint_eq(h.hangups, i);
        ck_assert_uint_eq(h.failures, i);
        ck_assert(!health_is_suspect(&h));
    }
    ck_assert_uint_eq(health_on_hung_up(&h, &opts, UINT32_MAX), 400);
    ck_assert_int_eq(h.state, HEALTH_DOWN);
    ck_assert_uint_eq(h.failures, 3);
    ck_assert(health_is_suspect(&h));
}
END_TEST

START_TEST(test_survivor_breaks_the_row_but_not_the_backoff)
{
    struct health h = up();

    health_on_hung_up(&h, &opts, 0);
    health_on_hung_up(&h, &opts, 0);
    health_on_survived(&h);
    ck_assert_uint_eq(h.hangups, 0);
    ck_assert_uint_eq(h.failures, 2);
    health_on_hung_up(&h, &opts, 0);
    health_on_hung_up(&h, &opts, 0);
    ck_assert_int_eq(h.state, HEALTH_UP);
    health_on_hung_up(&h, &opts, 0);
    ck_assert_int_eq(h.state, HEALTH_DOWN);
}
END_TEST

START_TEST(test_stable_connection_breaks_the_row)
{
    struct health h = up();

    for (int i = 0; i < HEALTH_HANGUPS_MAX; i++)
        health_on_hung_up(&h, &opts, 0);
    ck_assert(health_is_suspect(&h));
    health_on_stable(&h);
    ck_assert(!health_is_suspect(&h));
}
END_TEST

START_TEST(test_hang_up_of_a_suspects_probe_lengthens_the_pause)
{
    struct health h = up();
    uint64_t last = 0;

    for (int i = 0; i < HEALTH_HANGUPS_MAX; i++)
        last = health_on_hung_up(&h, &opts, UINT32_MAX);
    for (int i = 0; i < 3; i++) {
        uint64_t pause = health_on_hung_up(&h, &opts, UINT32_MAX);

        ck_assert_uint_eq(pause, last * 2);
        ck_assert_int_eq(h.state, HEALTH_DOWN);
        last = pause;
    }
    ck_assert(health_is_suspect(&h));
}
END_TEST

START_TEST(test_hang_up_while_not_up_is_a_failed_dial)
{
    struct health h = begun();

    ck_assert_uint_eq(health_on_hung_up(&h, &opts, UINT32_MAX), 0);
    ck_assert_int_eq(h.state, HEALTH_DIALING);
    ck_assert_uint_eq(health_on_hung_up(&h, &opts, UINT32_MAX), 200);
    ck_assert_int_eq(h.state, HEALTH_DOWN);
    ck_assert_uint_eq(h.failures, 2);
    ck_assert_uint_eq(h.hangups, 2);
}
END_TEST

START_TEST(test_failed_dial_after_a_hang_up_is_no_first_failure)
{
    struct health h = up();

    health_on_hung_up(&h, &opts, 0);
    ck_assert_uint_eq(health_on_failed(&h, &opts, UINT32_MAX), 200);
    ck_assert_int_eq(h.state, HEALTH_DOWN);
}
END_TEST

int
main(void)
{
    TCase *tc = tcase_create("health");
    Suite *suite = suite_create("health");
    SRunner *runner;
    int failed;

    tcase_add_test(tc, test_states_have_names);
    tcase_add_test(tc, test_begin_moves_only_from_unknown);
    tcase_add_test(tc, test_first_retry_is_at_once_and_the_second_failure_is_down);
    tcase_add_test(tc, test_retry_that_connects_is_up);
    tcase_add_loop_test(tc, test_pause_is_drawn_between_its_bounds, 0,
                        sizeof(bounds) / sizeof(bounds[0]));
    tcase_add_test(tc, test_draw_is_even);
    tcase_add_test(tc, test_pause_never_exceeds_max);
    tcase_add_test(tc, test_counters_stop_at_their_end);
    tcase_add_test(tc, test_mere_connect_does_not_clear_the_backoff);
    tcase_add_test(tc, test_stable_connection_clears_the_backoff);
    tcase_add_test(tc, test_down_server_gets_no_retry_at_once);
    tcase_add_test(tc, test_third_hang_up_in_a_row_is_down);
    tcase_add_test(tc, test_survivor_breaks_the_row_but_not_the_backoff);
    tcase_add_test(tc, test_stable_connection_breaks_the_row);
    tcase_add_test(tc, test_hang_up_of_a_suspects_probe_lengthens_the_pause);
    tcase_add_test(tc, test_hang_up_while_not_up_is_a_failed_dial);
    tcase_add_test(tc, test_failed_dial_after_a_hang_up_is_no_first_failure);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed > 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
