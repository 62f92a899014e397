/* SPDX-License-Identifier: MPL-2.0 */
#include <stdio.h>
#include <string.h>

#include "presence/redis_value.h"
#include "tests/unit/presence/lib.h"

static struct cq_view
view(const char *text)
{
    return (struct cq_view){(const uint8_t *)text, strlen(text)};
}

static void
test_exact_text(void **state)
{
    (void)state;
    const struct presence_redis_session sessions[] = {
        {"edge.1", 7, id_of(1), 1000},
        {"edge.2", UINT64_MAX, id_of(2), 2000},
    };
    char text[PRESENCE_REDIS_VALUE_SIZE];
    size_t n = presence_redis_value_write(text, 1234567890123, sessions, 2);
    assert_string_equal(text, "1234567890123;edge.1/7/ab000000000000000000000000000001/1000;"
                              "edge.2/18446744073709551615/ab000000000000000000000000000002/2000");
    assert_int_equal(n, strlen(text));
    struct presence_redis_session back[3];
    uint64_t heartbeat_unix_ms = 0;
    assert_int_equal(presence_redis_value_read(view(text), &heartbeat_unix_ms, back, 3), 2);
    assert_int_equal(heartbeat_unix_ms, 1234567890123);
    assert_memory_equal(&back[1].device, &sessions[1].device, CQ_ID_SIZE);
    assert_string_equal(back[1].edge, "edge.2");
    assert_true(back[1].session == UINT64_MAX);
    assert_int_equal(back[1].since_unix_ms, 2000);
    assert_int_equal(presence_redis_value_read(view(text), &heartbeat_unix_ms, NULL, 0), 0);
}

static void
test_largest_fits(void **state)
{
    (void)state;
    static struct presence_redis_session sessions[PRESENCE_REDIS_LISTED_MAX + 1];
    static struct presence_redis_session back[PRESENCE_REDIS_LISTED_MAX + 1];
    for (size_t i = 0; i <= PRESENCE_REDIS_LISTED_MAX; i++) {
        memset(sessions[i].edge, 'e', CQ_ACTOR_NAME_MAX);
        memset(&sessions[i].device, 0xff, CQ_ID_SIZE);
        sessions[i].session = sessions[i].since_unix_ms = UINT64_MAX;
    }
    char text[PRESENCE_REDIS_VALUE_SIZE];
    size_t n =
        presence_redis_value_write(text, UINT64_MAX, sessions, PRESENCE_REDIS_LISTED_MAX + 1);
    uint64_t heartbeat_unix_ms = 0;
    struct cq_view value = {(const uint8_t *)text, n};
    assert_int_equal(
        presence_redis_value_read(value, &heartbeat_unix_ms, back, PRESENCE_REDIS_LISTED_MAX + 1),
        PRESENCE_REDIS_LISTED_MAX);
    assert_true(heartbeat_unix_ms == UINT64_MAX);
}

static void
test_garbage(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        ";",
        "x",
        "-1",
        "1 ",
        "99999999999999999999",
        "111111111111111111111",
        "1;",
        "1;e",
        "1;edge.1/1/ab000000000000000000000000000001",
        "1;edge.1/1/ab00000000000000000000000000000/5",
        "1;edge.1/1/AB000000000000000000000000000001/5",
        "1;edge.1//ab000000000000000000000000000001/5",
        "1;/1/ab000000000000000000000000000001/5",
        "1;EDGE/1/ab000000000000000000000000000001/5",
        "1;edge.1/1/ab000000000000000000000000000001/5/6",
        "1;an-edge-with-a-name-that-is-too-long-for-it/1/ab000000000000000000000000000001/5",
        "1;edge.1/1/ab000000000000000000000000000001/5;;",
    };
    struct presence_redis_session s[4];
    uint64_t heartbeat_unix_ms = 0;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        /* Copies of the exact size: reading past the end is seen by the sanitizer. */
        size_t n = strlen(bad[i]);
        uint8_t *copy = malloc(n + 1);
        assert_non_null(copy);
        memcpy(copy, bad[i], n);
        int rc = presence_redis_value_read((struct cq_view){copy, n}, &heartbeat_unix_ms, s, 4);
        if (strcmp(bad[i], "1;") == 0) {
            assert_int_equal(rc, 0);
        } else {
            assert_int_equal(rc, -CQ_E_CORRUPT);
        }
        free(copy);
    }
    assert_int_equal(presence_redis_value_read((struct cq_view){0}, &heartbeat_unix_ms, s, 4),
                     -CQ_E_CORRUPT);
}

static void
test_keys(void **state)
{
    (void)state;
    char key[PRESENCE_REDIS_KEY_SIZE];
    struct cq_id id = id_of(0x1f);
    struct cq_id back;
    size_t n = presence_redis_value_key(key, PRESENCE_REDIS_ONLINE, &id);
    assert_string_equal(key, "chasqui:online:ab00000000000000000000000000001f");
    assert_int_equal(n, strlen(key));
    assert_int_equal(presence_redis_value_key_read(view(key), PRESENCE_REDIS_ONLINE, &back), 0);
    assert_true(cq_id_eq(&id, &back));
    assert_int_equal(presence_redis_value_key_read(view(key), PRESENCE_REDIS_SEEN, &back),
                     -CQ_E_BAD_ARG);
    assert_int_equal(
        presence_redis_value_key_read(view("chasqui:online:"), PRESENCE_REDIS_ONLINE, &back),
        -CQ_E_BAD_ARG);
    assert_int_equal(
        presence_redis_value_key_read(view("chasqui:online:ab00000000000000000000000000001"),
                                      PRESENCE_REDIS_ONLINE, &back),
        -CQ_E_BAD_ARG);
    assert_int_equal(
        presence_redis_value_key_read(view("chasqui:online:ag00000000000000000000000000001f"),
                                      PRESENCE_REDIS_ONLINE, &back),
        -CQ_E_BAD_ARG);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exact_text),
        cmocka_unit_test(test_largest_fits),
        cmocka_unit_test(test_garbage),
        cmocka_unit_test(test_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
