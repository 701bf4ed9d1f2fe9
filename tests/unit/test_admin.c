/* SPDX-License-Identifier: MIT */
#include "admin_internal.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#define LONGEST                                                                                    \
    "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn"                                           \
    "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn"                                           \
    "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn"                                           \
    "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn"

static const struct {
    const char *path;
    enum admin_route route;
    const char *upstream, *server;
} paths[] = {
    {"/", ROUTE_PAGE, NULL, NULL},
    {"/healthz", ROUTE_HEALTH, NULL, NULL},
    {"/readyz", ROUTE_READY, NULL, NULL},
    {"/status", ROUTE_STATUS, NULL, NULL},
    {"/metrics", ROUTE_METRICS, NULL, NULL},
    {"/sessions", ROUTE_SESSIONS, NULL, NULL},
    {"/reload", ROUTE_RELOAD, NULL, NULL},
    {"/drain", ROUTE_DRAIN, NULL, NULL},
    {"/servers/web/a/enable", ROUTE_ENABLE, "web", "a"},
    {"/servers/web/127.0.0.1:8000/disable", ROUTE_DISABLE, "web", "127.0.0.1:8000"},
    {"/servers/web/unix:%2Frun%2fx.sock/disable", ROUTE_DISABLE, "web", "unix:/run/x.sock"},
    {"/servers/a%25b/%5b::1%5D:80/enable", ROUTE_ENABLE, "a%b", "[::1]:80"},
    {"/servers/a/" LONGEST "/enable", ROUTE_ENABLE, "a", LONGEST},
    {"/servers/a/%41" LONGEST "/enable", ROUTE_NONE, NULL, NULL},
    {"/servers/" LONGEST "n/a/enable", ROUTE_NONE, NULL, NULL},
    {"", ROUTE_NONE, NULL, NULL},
    {"//", ROUTE_NONE, NULL, NULL},
    {"/status/", ROUTE_NONE, NULL, NULL},
    {"/Status", ROUTE_NONE, NULL, NULL},
    {"/%73tatus", ROUTE_NONE, NULL, NULL},
    {"*", ROUTE_NONE, NULL, NULL},
    {"http://host/status", ROUTE_NONE, NULL, NULL},
    {"/servers", ROUTE_NONE, NULL, NULL},
    {"/servers/", ROUTE_NONE, NULL, NULL},
    {"/servers/web", ROUTE_NONE, NULL, NULL},
    {"/servers/web/", ROUTE_NONE, NULL, NULL},
    {"/servers/web/a", ROUTE_NONE, NULL, NULL},
    {"/servers/web/a/", ROUTE_NONE, NULL, NULL},
    {"/servers/web/a/enabled", ROUTE_NONE, NULL, NULL},
    {"/servers/web/a/enable/", ROUTE_NONE, NULL, NULL},
    {"/servers//a/enable", ROUTE_NONE, NULL, NULL},
    {"/servers/web//enable", ROUTE_NONE, NULL, NULL},
    {"/servers/web/a/b/enable", ROUTE_NONE, NULL, NULL},
    {"/servers/web/a%00/enable", ROUTE_NONE, NULL, NULL},
    {"/servers/web/a%/enable", ROUTE_NONE, NULL, NULL},
    {"/servers/web/a%4/enable", ROUTE_NONE, NULL, NULL},
    {"/servers/web/a%g0/enable", ROUTE_NONE, NULL, NULL},
    {"/servers/web/a%", ROUTE_NONE, NULL, NULL},
    {"/servers/web/a%4", ROUTE_NONE, NULL, NULL},
};

START_TEST(test_paths)
{
    struct admin_target t;

    memset(&t, 'x', sizeof(t));
    admin_route_parse(&t, paths[_i].path);
    ck_assert_msg(t.route == paths[_i].route, "%s is %d", paths[_i].path, (int)t.route);
    if (paths[_i].server) {
        ck_assert_str_eq(t.upstream, paths[_i].upstream);
        ck_assert_str_eq(t.server, paths[_i].server);
    }
}
END_TEST

int
main(void)
{
    Suite *suite = suite_create("admin");
    TCase *tc = tcase_create("admin");
    SRunner *runner;
    int failed;

    tcase_add_loop_test(tc, test_paths, 0, sizeof(paths) / sizeof(paths[0]));
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
