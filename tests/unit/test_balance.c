/* SPDX-License-Identifier: MIT */
#include "balance.h"

#include "addr.h"

#include <arpa/inet.h>
#include <check.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MANY    250
#define CLIENTS 20000

static struct balance_server servers[MANY];
static struct balance_candidate candidates[MANY];

static struct addr
client(const char *text)
{
    const char *why;
    struct addr a;

    ck_assert_msg(addr_parse(&a, text, &why) == 0, "%s", why);
    return a;
}

static uint64_t
key_of(const char *text)
{
    struct addr a = client(text);

    return balance_key(&a);
}

/* Neighbours, as clients are. */
static uint64_t
nth_key(unsigned n)
{
    struct addr a = client("10.0.0.0:80");

    a.in.sin_addr.s_addr = htonl(0x0a000000U + n);
    return balance_key(&a);
}

/* ${n} servers named 10.0.0.I:80; NULL: all weigh 1. */
static void
set_servers(size_t n, const unsigned *weights)
{
    char name[32];

    for (size_t i = 0; i < n; i++) {
        snprintf(name, sizeof(name), "10.0.0.%zu:80", i);
        balance_init(&servers[i], name, weights ? weights[i] : 1);
        candidates[i] = (struct balance_candidate){.server = &servers[i]};
    }
}

static struct balance_server *
by_source(uint64_t key, const struct balance_candidate *c, size_t n)
{
    return c[balance_pick(BALANCE_SOURCE_HASH, key, c, n)].server;
}

/* All candidates but the ${out}-th, the other way round. */
static void
reverse_without(struct balance_candidate *to, size_t n, size_t out)
{
    for (size_t i = n; i-- > 0;) {
        if (i != out)
            *to++ = candidates[i];
    }
}

static bool
is_near(unsigned count, double expected, double tolerance)
{
    return count >= expected * (1 - tolerance) && count <= expected * (1 + tolerance);
}

START_TEST(test_first_is_the_first)
{
    set_servers(3, (const unsigned[]){1, 9, 9});
    candidates[0].sessions = 100;
    for (int i = 0; i < 10; i++)
        ck_assert_uint_eq(balance_pick(BALANCE_FIRST, 7, candidates, 3), 0);
}
END_TEST

START_TEST(test_one_candidate_is_picked_by_every_policy)
{
    set_servers(1, (const unsigned[]){256});
    candidates[0].sessions = 4000000000U;
    for (int i = 0; i < 3; i++) {
        ck_assert_uint_eq(balance_pick(BALANCE_ROUND_ROBIN, 0, candidates, 1), 0);
        ck_assert_uint_eq(balance_pick(BALANCE_LEAST_CONN, 0, candidates, 1), 0);
        ck_assert_uint_eq(balance_pick(BALANCE_SOURCE_HASH, 1, candidates, 1), 0);
        ck_assert_uint_eq(balance_pick(BALANCE_FIRST, 0, candidates, 1), 0);
    }
}
END_TEST

/* Round robin */

START_TEST(test_round_robin_is_smooth)
{
    static const size_t expected[] = {0, 0, 1, 0, 2, 0, 0};

    set_servers(3, (const unsigned[]){5, 1, 1});
    for (size_t i = 0; i < 21; i++)
        ck_assert_uint_eq(balance_pick(BALANCE_ROUND_ROBIN, 0, candidates, 3), expected[i % 7]);
}
END_TEST

START_TEST(test_round_robin_gives_each_its_weight)
{
    static const unsigned weights[] = {1, 256, 17, 3, 100, 1, 2};
    unsigned counts[7] = {0}, sum = 380, rounds = 5;

    set_servers(7, weights);
    for (unsigned i = 0; i < rounds * sum; i++) {
        size_t picked = balance_pick(BALANCE_ROUND_ROBIN, 0, candidates, 7);

        counts[picked]++;
        /* Never far ahead of its share, however it is cut. */
        ck_assert_double_le(counts[picked], (double)weights[picked] / sum * (i + 1) + 7);
    }
    for (int i = 0; i < 7; i++)
        ck_assert_uint_eq(counts[i], (uintmax_t)rounds * weights[i]);
}
END_TEST

START_TEST(test_round_robin_does_not_repay_a_server_that_was_away)
{
    unsigned row = 0;

    set_servers(3, NULL);
    for (int i = 0; i < 1000; i++)
        balance_pick(BALANCE_ROUND_ROBIN, 0, candidates, 2);
    for (int i = 0; i < 30; i++) {
        row = balance_pick(BALANCE_ROUND_ROBIN, 0, candidates, 3) == 2 ? row + 1 : 0;
        ck_assert_uint_le(row, 1);
    }
}
END_TEST

START_TEST(test_round_robin_starts_anywhere_and_ignores_sessions)
{
    set_servers(2, NULL);
    candidates[0].sessions = 1000;
    ck_assert_uint_eq(balance_pick(BALANCE_ROUND_ROBIN, 0, candidates, 2), 0);
    ck_assert_uint_eq(balance_pick(BALANCE_ROUND_ROBIN, 0, candidates, 2), 1);
}
END_TEST

/* Least connections */

START_TEST(test_least_conn_never_picks_a_busier_one)
{
    unsigned weights[20];

    srandom(1);
    for (int round = 0; round < 5000; round++) {
        size_t n = 1 + (size_t)random() % 20;
        for (size_t i = 0; i < n; i++)
            weights[i] = 1 + (unsigned)random() % 256;
        set_servers(n, weights);
        for (size_t i = 0; i < n; i++)
            candidates[i].sessions =
                (unsigned)random() % (round % 2 ? 4 : 4000) * (round % 3 ? 1 : 1000000);
        size_t picked = balance_pick(BALANCE_LEAST_CONN, 0, candidates, n);
        for (size_t i = 0; i < n; i++)
            ck_assert_double_le((double)candidates[picked].sessions / weights[picked],
                                (double)candidates[i].sessions / weights[i]);
    }
}
END_TEST

START_TEST(test_least_conn_fills_by_weight)
{
    static const unsigned weights[] = {1, 2, 7};

    set_servers(3, weights);
    for (int i = 0; i < 1000; i++)
        candidates[balance_pick(BALANCE_LEAST_CONN, 0, candidates, 3)].sessions++;
    for (int i = 0; i < 3; i++)
        ck_assert_uint_eq(candidates[i].sessions, UINTMAX_C(100) * weights[i]);
}
END_TEST

START_TEST(test_least_conn_uses_idle_servers_in_turn)
{
    unsigned counts[4] = {0};

    set_servers(4, NULL);
    for (unsigned i = 0; i < 400; i++) {
        counts[balance_pick(BALANCE_LEAST_CONN, 0, candidates, 4)]++;
        if (i % 4 == 3)
            for (int j = 0; j < 4; j++)
                ck_assert_uint_eq(counts[j], i / 4 + 1);
    }
}
END_TEST

START_TEST(test_least_conn_uses_idle_servers_by_weight)
{
    unsigned counts[2] = {0};

    set_servers(2, (const unsigned[]){3, 1});
    for (int i = 0; i < 400; i++)
        counts[balance_pick(BALANCE_LEAST_CONN, 0, candidates, 2)]++;
    ck_assert_uint_eq(counts[0], 300);
}
END_TEST

START_TEST(test_least_conn_takes_turns_among_the_equal_alone)
{
    set_servers(3, NULL);
    candidates[1].sessions = 1;
    for (size_t i = 0; i < 10; i++)
        ck_assert_uint_eq(balance_pick(BALANCE_LEAST_CONN, 0, candidates, 3), i % 2 ? 2 : 0);
    /* The busy one has gathered no claims meanwhile. */
    ck_assert_int_eq(servers[1].credit, 0);
}
END_TEST

/* Source hash: the key */

START_TEST(test_key_is_the_address_without_port)
{
    ck_assert_uint_eq(key_of("192.0.2.1:1"), key_of("192.0.2.1:65535"));
    ck_assert_uint_eq(key_of("[2001:db8::1]:1"), key_of("[2001:db8::1]:65535"));
    ck_assert_uint_ne(key_of("192.0.2.1:1"), key_of("192.0.2.2:1"));
    ck_assert_uint_ne(key_of("[2001:db8::1]:1"), key_of("[2001:db8::2]:1"));
}
END_TEST

START_TEST(test_key_of_a_mapped_address_is_that_of_ipv4)
{
    ck_assert_uint_eq(key_of("[::ffff:192.0.2.1]:1"), key_of("192.0.2.1:1"));
    ck_assert_uint_ne(key_of("[::192.0.2.1]:1"), key_of("192.0.2.1:1"));
}
END_TEST

START_TEST(test_key_is_independent_of_the_scope)
{
    struct addr a = client("[2001:db8::1]:1"), b = a;

    a.in6.sin6_scope_id = 1;
    b.in6.sin6_scope_id = 2;
    ck_assert_uint_eq(balance_key(&a), balance_key(&b));
}
END_TEST

START_TEST(test_client_without_ip_address_has_no_key)
{
    struct addr none = {.len = 0};

    ck_assert_uint_eq(key_of("unix:/run/app.sock"), 0);
    ck_assert_uint_eq(key_of("unix:@app"), 0);
    ck_assert_uint_eq(balance_key(&none), 0);
    ck_assert_uint_ne(key_of("0.0.0.0:1"), 0);
}
END_TEST

/* Other machines and later versions must agree: these are the hash. */
START_TEST(test_hash_stays_as_it_is)
{
    static const size_t picked[] = {4, 1, 4, 4, 4, 3, 3, 3, 2, 4, 3, 3, 0, 0, 3, 4};

    set_servers(5, (const unsigned[]){1, 2, 3, 4, 5});
    ck_assert_uint_eq(key_of("192.0.2.1:80"), UINT64_C(0x1e00e9a12f8249cb));
    ck_assert_uint_eq(key_of("[2001:db8::1]:80"), UINT64_C(0x216dba65aa6c0c57));
    for (unsigned k = 0; k < sizeof(picked) / sizeof(picked[0]); k++)
        ck_assert_uint_eq(balance_pick(BALANCE_SOURCE_HASH, nth_key(k), candidates, 5), picked[k]);
    ck_assert_uint_eq(servers[0].seed, UINT64_C(0x5a89fe5152d1fdcc));
}
END_TEST

/* Source hash: the pick */

START_TEST(test_source_hash_without_a_key_is_round_robin)
{
    set_servers(3, NULL);
    for (size_t i = 0; i < 9; i++)
        ck_assert_uint_eq(balance_pick(BALANCE_SOURCE_HASH, 0, candidates, 3), i % 3);
}
END_TEST

START_TEST(test_source_hash_is_the_same_each_time)
{
    set_servers(10, NULL);
    for (unsigned k = 0; k < 100; k++) {
        struct balance_server *first = by_source(nth_key(k), candidates, 10);

        candidates[k % 10].sessions += 5;
        ck_assert_ptr_eq(by_source(nth_key(k), candidates, 10), first);
    }
}
END_TEST

static const unsigned weights_of[][5] = {
    {1, 1, 1, 1, 1},
    {1, 2, 3, 4, 5},
    {256, 1, 16, 64, 128},
};

START_TEST(test_source_hash_does_not_depend_on_the_order)
{
    struct balance_candidate reversed[5];

    set_servers(5, weights_of[_i]);
    reverse_without(reversed, 5, 5);
    for (unsigned k = 0; k < CLIENTS; k++)
        ck_assert_ptr_eq(by_source(nth_key(k), candidates, 5), by_source(nth_key(k), reversed, 5));
}
END_TEST

START_TEST(test_source_hash_moves_only_the_clients_of_the_one_that_goes)
{
    struct balance_candidate rest[5];
    unsigned moved[5] = {0}, to[5][5] = {{0}};

    set_servers(5, weights_of[_i]);
    for (size_t out = 0; out < 5; out++) {
        reverse_without(rest, 5, out);
        for (unsigned k = 0; k < CLIENTS; k++) {
            struct balance_server *before = by_source(nth_key(k), candidates, 5);
            struct balance_server *after = by_source(nth_key(k), rest, 4);

            if (before == &servers[out]) {
                moved[out]++;
                to[out][after - servers]++;
            } else {
                ck_assert_ptr_eq(before, after);
            }
        }
        /* Seen the other way round, the one that comes takes its share from each of the others. */
        ck_assert(moved[out] > 0);
        for (size_t i = 0; moved[out] > 1000 && i < 5; i++)
            ck_assert((to[out][i] > 0) == (i != out));
    }
}
END_TEST

START_TEST(test_source_hash_with_more_weight_only_gains)
{
    struct balance_server *before[CLIENTS];

    set_servers(5, weights_of[_i]);
    for (unsigned k = 0; k < CLIENTS; k++)
        before[k] = by_source(nth_key(k), candidates, 5);
    servers[2].weight *= 2;
    for (unsigned k = 0; k < CLIENTS; k++) {
        struct balance_server *after = by_source(nth_key(k), candidates, 5);

        ck_assert(after == before[k] || after == &servers[2]);
    }
}
END_TEST

START_TEST(test_source_hash_gives_each_its_weight)
{
    unsigned counts[5] = {0}, sum = 0;

    set_servers(5, weights_of[_i]);
    for (int i = 0; i < 5; i++)
        sum += weights_of[_i][i];
    for (unsigned k = 0; k < 10 * CLIENTS; k++)
        counts[by_source(nth_key(k), candidates, 5) - servers]++;
    for (int i = 0; i < 5; i++) {
        double expected = 10. * CLIENTS * weights_of[_i][i] / sum;

        /* Four standard deviations; the draws are the same each time. */
        ck_assert_msg(is_near(counts[i], expected, 4 / __builtin_sqrt(expected)),
                      "server %d: %u, expected %g", i, counts[i], expected);
    }
}
END_TEST

START_TEST(test_source_hash_spreads_over_many_servers)
{
    unsigned counts[MANY] = {0};
    double chi_square = 0;

    set_servers(MANY, NULL);
    for (unsigned k = 0; k < 20 * MANY; k++)
        counts[by_source(nth_key(k), candidates, MANY) - servers]++;
    for (int i = 0; i < MANY; i++)
        chi_square += (counts[i] - 20.) * (counts[i] - 20.) / 20.;
    /* 249 degrees of freedom: 249 on average, with a standard deviation of 22. */
    ck_assert_double_gt(chi_square, 249 - 4 * 22);
    ck_assert_double_lt(chi_square, 249 + 4 * 22);
}
END_TEST

int
main(void)
{
    TCase *tc = tcase_create("balance"), *statistics = tcase_create("statistics");
    Suite *suite = suite_create("balance");
    SRunner *runner;
    int failed, n = sizeof(weights_of) / sizeof(weights_of[0]);

    tcase_add_test(tc, test_first_is_the_first);
    tcase_add_test(tc, test_one_candidate_is_picked_by_every_policy);
    tcase_add_test(tc, test_round_robin_is_smooth);
    tcase_add_test(tc, test_round_robin_gives_each_its_weight);
    tcase_add_test(tc, test_round_robin_does_not_repay_a_server_that_was_away);
    tcase_add_test(tc, test_round_robin_starts_anywhere_and_ignores_sessions);
    tcase_add_test(tc, test_least_conn_never_picks_a_busier_one);
    tcase_add_test(tc, test_least_conn_fills_by_weight);
    tcase_add_test(tc, test_least_conn_uses_idle_servers_in_turn);
    tcase_add_test(tc, test_least_conn_uses_idle_servers_by_weight);
    tcase_add_test(tc, test_least_conn_takes_turns_among_the_equal_alone);
    tcase_add_test(tc, test_key_is_the_address_without_port);
    tcase_add_test(tc, test_key_of_a_mapped_address_is_that_of_ipv4);
    tcase_add_test(tc, test_key_is_independent_of_the_scope);
    tcase_add_test(tc, test_client_without_ip_address_has_no_key);
    tcase_add_test(tc, test_hash_stays_as_it_is);
    tcase_add_test(tc, test_source_hash_without_a_key_is_round_robin);
    tcase_add_test(tc, test_source_hash_is_the_same_each_time);
    tcase_add_test(tc, test_source_hash_spreads_over_many_servers);
    suite_add_tcase(suite, tc);
    tcase_add_loop_test(statistics, test_source_hash_does_not_depend_on_the_order, 0, n);
    tcase_add_loop_test(statistics, test_source_hash_moves_only_the_clients_of_the_one_that_goes, 0,
                        n);
    tcase_add_loop_test(statistics, test_source_hash_with_more_weight_only_gains, 0, n);
    tcase_add_loop_test(statistics, test_source_hash_gives_each_its_weight, 0, n);
    tcase_set_tags(statistics, "long");
    suite_add_tcase(suite, statistics);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed > 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
