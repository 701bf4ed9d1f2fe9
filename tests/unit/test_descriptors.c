/* SPDX-License-Identifier: MIT */
#include "conf.h"
#include "descriptors.h"

#include <check.h>
#include <stdlib.h>

/* Of a configuration with so many servers and so many standby connections to each. */
static struct descriptors_use
use_of(size_t n_servers, unsigned standby)
{
    static struct conf_server servers[64];
    static struct conf_upstream upstream, *upstreams[] = {&upstream};
    static struct conf conf;

    upstream =
        (struct conf_upstream){.servers = servers, .n_servers = n_servers, .standby = standby};
    conf = (struct conf){.upstreams = upstreams, .n_upstreams = 1};
    return (struct descriptors_use){.conf = &conf, .n_workers = 2, .n_bindings = 1};
}

START_TEST(test_a_session_takes_two)
{
    struct descriptors_use use = use_of(1, 0);
    struct descriptors_share less = descriptors_share(&use, 5000),
                             more = descriptors_share(&use, 5002);

    ck_assert_uint_eq(more.sessions, less.sessions + 1);
    ck_assert_uint_lt(2 * less.sessions, 5000);
    ck_assert_uint_eq(less.standby_wanted, 0);
}
END_TEST

START_TEST(test_standby_connections_get_a_third_at_most)
{
    struct descriptors_use use = use_of(64, 1024);
    struct descriptors_share share = descriptors_share(&use, 6000);

    ck_assert_uint_eq(share.standby_wanted, 64 * 1024);
    ck_assert_uint_le(share.standby, 2 * share.sessions / 2 + 1);
    ck_assert_uint_gt(share.standby, 1000);
}
END_TEST

START_TEST(test_whoever_asks_the_daemon_has_descriptors_too)
{
    struct descriptors_use use = use_of(1, 0);
    struct descriptors_share without = descriptors_share(&use, 5000);
    struct conf conf = *use.conf;

    conf.daemon.n_admins = 1;
    use.conf = &conf;
    ck_assert_uint_lt(descriptors_share(&use, 5000).sessions, without.sessions);
}
END_TEST

START_TEST(test_something_fits_into_the_smallest_limit)
{
    struct descriptors_use use = use_of(1, 1);
    struct descriptors_share share = descriptors_share(&use, DESCRIPTORS_MIN);

    ck_assert_uint_ge(share.sessions, 1);
    ck_assert_uint_eq(share.standby, 1);
}
END_TEST

START_TEST(test_what_is_needed_is_enough_and_not_much_more)
{
    static const unsigned standby[] = {0, 1, 10, 1024};
    static const uint64_t sessions[] = {0, 1, 100, 4000, 1000000};

    for (size_t i = 0; i < 4; i++) {
        for (size_t k = 0; k < 5; k++) {
            struct descriptors_use use = use_of(8, standby[i]);
            uint64_t needed = descriptors_needed(&use, sessions[k]);
            struct descriptors_share share = descriptors_share(&use, needed + 4);
            ck_assert_uint_ge(share.sessions, sessions[k]);
            ck_assert_uint_ge(share.standby, share.standby_wanted);
            share = descriptors_share(&use, needed - 4);
            ck_assert(share.sessions < sessions[k] || share.standby < share.standby_wanted ||
                      sessions[k] < 2);
        }
    }
}
END_TEST

int
main(void)
{
    Suite *suite = suite_create("descriptors");
    TCase *tcase = tcase_create("descriptors");
    SRunner *runner;
    int failed;

    tcase_add_test(tcase, test_a_session_takes_two);
    tcase_add_test(tcase, test_standby_connections_get_a_third_at_most);
    tcase_add_test(tcase, test_whoever_asks_the_daemon_has_descriptors_too);
    tcase_add_test(tcase, test_something_fits_into_the_smallest_limit);
    tcase_add_test(tcase, test_what_is_needed_is_enough_and_not_much_more);
    suite_add_tcase(suite, tcase);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
