/* SPDX-License-Identifier: MIT */
#include "handover.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#define N(a) (sizeof(a) / sizeof((a)[0]))

static struct addr
parsed(const char *text)
{
    const char *why = "";
    struct addr a;

    ck_assert_msg(addr_parse(&a, text, &why) == 0, "%s: %s", text, why);
    return a;
}

static const struct {
    const char *address, *name, *lock;
} names[] = {
    {"127.0.0.1:80", "redial/127.0.0.1;80", "redial/lock/127.0.0.1;80"},
    {"[::1]:80", "redial/[;;1];80", "redial/lock/[;;1];80"},
    {"[::]:80", "redial/[;;];80", "redial/lock/[;;];80"},
    {"*:80", "redial/*;80", "redial/lock/*;80"},
    {"unix:/run/a b.sock", "redial/unix;/run/a b.sock", "redial/lock/unix;/run/a b.sock"},
    {"unix:@a", "redial/unix;@a", "redial/lock/unix;@a"},
    /* What would be another's name, or is none for the service manager. */
    {"unix:/run/a;b", NULL, NULL},
    {"unix:/run/a\nb", NULL, NULL},
    {"unix:/run/\xc3\xa4", NULL, NULL},
    {"unix:/run/a\x7f", NULL, NULL},
};

START_TEST(test_address_has_a_name_or_none)
{
    struct addr a = parsed(names[_i].address);
    char buf[HANDOVER_NAME_MAX], lock[HANDOVER_NAME_MAX];

    if (!names[_i].name) {
        ck_assert_ptr_null(handover_name(&a, buf));
        ck_assert_ptr_null(handover_lock_name(&a, lock));
        return;
    }
    ck_assert_ptr_eq(handover_name(&a, buf), buf);
    ck_assert_str_eq(buf, names[_i].name);
    ck_assert_ptr_eq(handover_lock_name(&a, lock), lock);
    ck_assert_str_eq(lock, names[_i].lock);
}
END_TEST

START_TEST(test_longest_path_has_a_name)
{
    char text[5 + 107 + 1] = "unix:/", buf[HANDOVER_NAME_MAX];

    memset(text + 6, 'a', sizeof(text) - 7);
    struct addr a = parsed(text);
    ck_assert_ptr_nonnull(handover_lock_name(&a, buf));
    ck_assert_uint_eq(strlen(buf), strlen("redial/lock/") + strlen(text));
}
END_TEST

START_TEST(test_names_are_copied)
{
    struct handover h = {.n = 0};
    char name[] = "redial/a";

    ck_assert_int_eq(handover_add(&h, 5, name), 0);
    ck_assert_int_eq(handover_add(&h, 5, name), 0);
    name[7] = 'b';
    ck_assert_uint_eq(h.n, 2);
    ck_assert_int_eq(h.fds[1].fd, 5);
    ck_assert_str_eq(h.fds[1].name, "redial/a");
    handover_fini(&h);
    ck_assert_uint_eq(h.n, 0);
    handover_fini(&h);
}
END_TEST

START_TEST(test_without_a_predecessor_nobody_awaits_us)
{
    unsetenv("REDIALD_READY_FD");
    handover_take_ready();
    ck_assert(!handover_is_ready_awaited());
    ck_assert_int_eq(handover_tell_ready(), -1);
}
END_TEST

static const char *const no_descriptors[] = {"", "0", "2", "-1", "999", "x"};

START_TEST(test_what_is_no_descriptor_is_not_told)
{
    setenv("REDIALD_READY_FD", no_descriptors[_i], 1);
    handover_take_ready();
    ck_assert(!handover_is_ready_awaited());
    ck_assert_ptr_null(getenv("REDIALD_READY_FD"));
    ck_assert_int_eq(handover_tell_ready(), -1);
}
END_TEST

int
main(void)
{
    Suite *suite = suite_create("handover");
    TCase *tc = tcase_create("handover");
    SRunner *runner;
    int failed;

    tcase_add_loop_test(tc, test_address_has_a_name_or_none, 0, N(names));
    tcase_add_test(tc, test_longest_path_has_a_name);
    tcase_add_test(tc, test_names_are_copied);
    tcase_add_test(tc, test_without_a_predecessor_nobody_awaits_us);
    tcase_add_loop_test(tc, test_what_is_no_descriptor_is_not_told, 0, N(no_descriptors));
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
