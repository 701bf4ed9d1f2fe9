/* SPDX-License-Identifier: MIT */
#include "endpoints.h"

#include "addr.h"

#include <check.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define HOPS_MAX 8
#define MANY     5000
#define THREADS  4
#define ROUNDS   5000

enum { WEB = 1, DB = 2, MAIL = 3, OTHER = 4 }; /* upstreams */

static struct endpoints *table;

static void
setup(void)
{
    table = endpoints_new(HOPS_MAX);
    ck_assert_ptr_nonnull(table);
}

static void
teardown(void)
{
    endpoints_free(table);
}

static struct addr
address(const char *text)
{
    struct addr a;
    const char *why;

    ck_assert_int_eq(addr_parse(&a, text, &why), 0);
    return a;
}

static struct trail
way(unsigned n, const uint32_t *upstreams)
{
    struct trail t = {.hops = 0};

    for (unsigned i = 0; i < n; i++)
        trail_extend(&t, upstreams[i]);
    return t;
}

static void
init_dial_by(struct endpoint *e, uint32_t upstream)
{
    struct trail t = way(1, &upstream);

    endpoint_init(e, &t);
}

static void
add(struct endpoint *e, const char *local, const char *peer)
{
    struct addr from = address(local), to = address(peer);

    endpoints_add(table, e, &from, &to);
}

static bool
has(const char *local)
{
    struct addr a = address(local);

    return endpoints_has(table, &a);
}

static enum arrival
arrive(const char *local, const char *peer, uint32_t upstream)
{
    struct addr from = address(local), to = address(peer);
    struct trail t = {.hops = 0};
    enum arrival arrival = endpoints_arrive(table, &from, &to, upstream, &t);

    ck_assert_int_eq(t.hops > 0, arrival != ARRIVAL_UNKNOWN);
    return arrival;
}

START_TEST(test_a_dial_is_known_as_long_as_it_is_in)
{
    struct endpoint e;

    init_dial_by(&e, WEB);
    ck_assert(!has("127.0.0.1:40000"));
    ck_assert_int_eq(arrive("127.0.0.1:40000", "127.0.0.1:8000", DB), ARRIVAL_UNKNOWN);
    add(&e, "127.0.0.1:40000", "127.0.0.1:8000");
    ck_assert(has("127.0.0.1:40000") && endpoint_is_in(&e));
    ck_assert_int_eq(arrive("127.0.0.1:40000", "127.0.0.1:8000", DB), ARRIVAL_OWN);
    endpoints_remove(table, &e);
    ck_assert(!has("127.0.0.1:40000") && !endpoint_is_in(&e));
    endpoints_remove(table, &e);
}
END_TEST

START_TEST(test_dials_under_way_are_counted)
{
    ck_assert(!endpoints_is_dialling(table));
    endpoints_begin_dial(table);
    endpoints_begin_dial(table);
    endpoints_end_dial(table);
    ck_assert(endpoints_is_dialling(table));
    endpoints_end_dial(table);
    ck_assert(!endpoints_is_dialling(table));
}
END_TEST

/* local, peer; those of another connection. */
static const char *const strangers[][2] = {
    {"127.0.0.1:40001", "127.0.0.1:8000"}, {"127.0.0.2:40000", "127.0.0.1:8000"},
    {"127.0.0.1:40000", "127.0.0.1:8001"}, {"127.0.0.1:40000", "127.0.0.2:8000"},
    {"127.0.0.1:8000", "127.0.0.1:40000"}, {"[::1]:40000", "[::1]:8000"},
};

START_TEST(test_only_both_ends_make_it_ours)
{
    struct endpoint e;

    init_dial_by(&e, WEB);
    add(&e, "127.0.0.1:40000", "127.0.0.1:8000");
    ck_assert_int_eq(arrive(strangers[_i][0], strangers[_i][1], WEB), ARRIVAL_UNKNOWN);
    ck_assert(!endpoint_came_back(&e));
    endpoints_remove(table, &e);
}
END_TEST

START_TEST(test_mapped_addresses_are_ipv4)
{
    struct endpoint e;

    init_dial_by(&e, WEB);
    add(&e, "[::ffff:10.0.0.1]:40000", "10.0.0.2:8000");
    ck_assert(has("10.0.0.1:40000"));
    ck_assert_int_eq(arrive("10.0.0.1:40000", "[::ffff:10.0.0.2]:8000", DB), ARRIVAL_OWN);
    endpoints_remove(table, &e);
    add(&e, "10.0.0.1:40000", "10.0.0.2:8000");
    ck_assert(has("[::ffff:10.0.0.1]:40000"));
    endpoints_remove(table, &e);
}
END_TEST

START_TEST(test_dials_that_share_a_local_end_are_told_apart)
{
    struct endpoint web, db;

    init_dial_by(&web, WEB);
    init_dial_by(&db, DB);
    add(&web, "[2001:db8::1]:40000", "[2001:db8::2]:8000");
    add(&db, "[2001:db8::1]:40000", "[2001:db8::2]:5432");
    ck_assert_int_eq(arrive("[2001:db8::1]:40000", "[2001:db8::2]:8000", WEB), ARRIVAL_LOOP);
    ck_assert(endpoint_came_back(&web));
    ck_assert(!endpoint_came_back(&db));
    endpoints_remove(table, &web);
    ck_assert_int_eq(arrive("[2001:db8::1]:40000", "[2001:db8::2]:8000", WEB), ARRIVAL_UNKNOWN);
    ck_assert_int_eq(arrive("[2001:db8::1]:40000", "[2001:db8::2]:5432", WEB), ARRIVAL_OWN);
    endpoints_remove(table, &db);
}
END_TEST

START_TEST(test_came_back_lasts_until_it_is_taken_out)
{
    struct endpoint e;

    init_dial_by(&e, WEB);
    add(&e, "10.0.0.1:1", "10.0.0.2:2");
    ck_assert(!endpoint_came_back(&e));
    ck_assert_int_eq(arrive("10.0.0.1:1", "10.0.0.2:2", WEB), ARRIVAL_LOOP);
    ck_assert(endpoint_came_back(&e));
    endpoints_remove(table, &e);
    ck_assert(!endpoint_came_back(&e));
}
END_TEST

START_TEST(test_a_moved_one_keeps_what_is_known_of_it)
{
    struct endpoint probe, session;

    init_dial_by(&probe, WEB);
    init_dial_by(&session, WEB);
    endpoints_move(table, &probe, &session); /* as with a UNIX socket */
    add(&probe, "10.0.0.1:1", "10.0.0.2:2");
    ck_assert_int_eq(arrive("10.0.0.1:1", "10.0.0.2:2", WEB), ARRIVAL_LOOP);
    endpoints_move(table, &probe, &session);
    ck_assert(endpoint_came_back(&session));
    endpoints_remove(table, &probe);
    ck_assert(has("10.0.0.1:1"));
    endpoints_remove(table, &session);
    ck_assert(!has("10.0.0.1:1"));
}
END_TEST

START_TEST(test_one_that_grows_and_empties_loses_nobody)
{
    struct endpoint *e = calloc(MANY, sizeof(*e));
    char local[64];

    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 0; i < MANY; i++) {
            snprintf(local, sizeof(local), "10.0.%u.1:%u", i % 3, 10000 + i);
            init_dial_by(&e[i], i);
            add(&e[i], local, "10.0.0.2:8000");
        }
        for (unsigned i = 0; i < MANY; i++) {
            snprintf(local, sizeof(local), "10.0.%u.1:%u", i % 3, 10000 + i);
            ck_assert_int_eq(arrive(local, "10.0.0.2:8000", i), ARRIVAL_LOOP);
            ck_assert_int_eq(arrive(local, "10.0.0.2:8000", i + 1), ARRIVAL_OWN);
            endpoints_remove(table, &e[i]);
            ck_assert(!has(local));
        }
    }
    free(e);
}
END_TEST

START_TEST(test_who_is_not_ours_leads_nowhere)
{
    struct trail t = {.hops = 0};

    ck_assert(!trail_leads_back(&t, 0, HOPS_MAX));
}
END_TEST

START_TEST(test_a_chain_may_have_as_many_dials_as_the_table_says)
{
    struct trail t = {.hops = 0};

    for (uint32_t i = 0; i < HOPS_MAX; i++) {
        ck_assert(!trail_leads_back(&t, i, HOPS_MAX));
        trail_extend(&t, i);
    }
    ck_assert(!trail_leads_back(&t, HOPS_MAX, HOPS_MAX));
    trail_extend(&t, HOPS_MAX);
    ck_assert(trail_leads_back(&t, HOPS_MAX + 1, HOPS_MAX));
}
END_TEST

static const struct {
    unsigned n;
    uint32_t way[4], upstream;
    bool leads_back;
} ways[] = {
    {1, {WEB}, WEB, true},
    {1, {WEB}, DB, false},
    {2, {WEB, DB}, DB, true},
    {2, {WEB, DB}, WEB, true},
    {2, {WEB, DB}, MAIL, false},
    {3, {WEB, DB, MAIL}, MAIL, true},
    {3, {WEB, DB, MAIL}, WEB, true},
    {3, {WEB, DB, MAIL}, DB, true},
    {3, {WEB, DB, MAIL}, OTHER, false},
};

START_TEST(test_a_way_leads_back_to_those_on_it)
{
    struct trail t = way(ways[_i].n, ways[_i].way);

    ck_assert(trail_leads_back(&t, ways[_i].upstream, HOPS_MAX) == ways[_i].leads_back);
}
END_TEST

/* From outside into a circle, with no bound on the hops: found within three times the way into it and around. */
START_TEST(test_a_circle_is_found_soon)
{
    unsigned before = (unsigned)_i % 20, length = 1 + (unsigned)_i / 20;
    struct trail t = {.hops = 0};
    uint32_t next = 0;
    unsigned hops = 0;

    while (!trail_leads_back(&t, next, SIZE_MAX)) {
        trail_extend(&t, next);
        next = next + 1 < before + length ? next + 1 : before;
        hops++;
        ck_assert_uint_le(hops, 3 * (before + length));
    }
    ck_assert_uint_ge(hops, before + length);
}
END_TEST

START_TEST(test_hops_are_never_wrapped)
{
    struct trail t = {.hops = UINT16_MAX};

    trail_extend(&t, DB);
    ck_assert_uint_eq(t.hops, UINT16_MAX);
    ck_assert_uint_eq(t.last, DB);
    ck_assert(trail_leads_back(&t, WEB, HOPS_MAX));
}
END_TEST

START_TEST(test_a_client_of_ours_is_told_by_the_second_hop)
{
    struct endpoint e;
    struct trail t = way(2, (const uint32_t[]){WEB, DB});

    init_dial_by(&e, WEB);
    ck_assert(!endpoint_is_inner(&e));
    endpoint_init(&e, &t);
    ck_assert(endpoint_is_inner(&e));
}
END_TEST

static void *
dial_and_meet(void *arg)
{
    struct endpoint mine, next;
    struct addr local = address("10.0.0.1:1"), peer = address("10.0.0.2:2");
    struct trail t;

    init_dial_by(&mine, WEB);
    init_dial_by(&next, WEB);
    for (unsigned i = 0; i < ROUNDS; i++) {
        addr_set_port(&local, (uint16_t)(1 + i % 7)); /* others use the same */
        addr_set_port(&peer, (uint16_t)(1 + *(unsigned *)arg));
        endpoints_add(table, &mine, &local, &peer);
        if (!endpoints_has(table, &local) ||
            endpoints_arrive(table, &local, &peer, WEB, &t) != ARRIVAL_LOOP)
            return arg;
        endpoints_move(table, &mine, &next);
        if (!endpoint_came_back(&next))
            return arg;
        endpoints_remove(table, &next);
        addr_set_port(&peer, 1);
        (void)endpoints_arrive(table, &local, &peer, DB, &t);
    }
    return NULL;
}

START_TEST(test_threads_do_not_disturb_each_other)
{
    pthread_t threads[THREADS];
    unsigned number[THREADS];
    void *failed;

    for (unsigned i = 0; i < THREADS; i++) {
        number[i] = i;
        ck_assert_int_eq(pthread_create(&threads[i], NULL, dial_and_meet, &number[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        ck_assert_int_eq(pthread_join(threads[i], &failed), 0);
        ck_assert_ptr_null(failed);
    }
}
END_TEST

#define N(a) ((int)(sizeof(a) / sizeof((a)[0])))

int
main(void)
{
    Suite *suite = suite_create("endpoints");
    TCase *tc = tcase_create("endpoints");

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, test_a_dial_is_known_as_long_as_it_is_in);
    tcase_add_test(tc, test_dials_under_way_are_counted);
    tcase_add_loop_test(tc, test_only_both_ends_make_it_ours, 0, N(strangers));
    tcase_add_test(tc, test_mapped_addresses_are_ipv4);
    tcase_add_test(tc, test_dials_that_share_a_local_end_are_told_apart);
    tcase_add_test(tc, test_came_back_lasts_until_it_is_taken_out);
    tcase_add_test(tc, test_a_moved_one_keeps_what_is_known_of_it);
    tcase_add_test(tc, test_one_that_grows_and_empties_loses_nobody);
    tcase_add_test(tc, test_who_is_not_ours_leads_nowhere);
    tcase_add_test(tc, test_a_chain_may_have_as_many_dials_as_the_table_says);
    tcase_add_loop_test(tc, test_a_way_leads_back_to_those_on_it, 0, N(ways));
    tcase_add_loop_test(tc, test_a_circle_is_found_soon, 0, 20 * 10);
    tcase_add_test(tc, test_hops_are_never_wrapped);
    tcase_add_test(tc, test_a_client_of_ours_is_told_by_the_second_hop);
    tcase_add_test(tc, test_threads_do_not_disturb_each_other);
    suite_add_tcase(suite, tc);

    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
