/* SPDX-License-Identifier: MPL-2.0 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <sodium.h>

#include "folder.h"
#include "store/master_key.h"

static char folder[FOLDER_PATH_SIZE];
static char data[FOLDER_PATH_SIZE + 16];
static char path[FOLDER_PATH_SIZE + 32];

#define DIGITS "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"

static int
set_up(void **state)
{
    (void)state;
    folder_make(folder);
    (void)snprintf(data, sizeof data, "%s/data", folder);
    (void)snprintf(path, sizeof path, "%s/keys/master.key", folder);
    return mkdir(data, 0700);
}

static int
tear_down(void **state)
{
    (void)state;
    folder_remove(folder);
    return 0;
}

static int
load(bool may_create, uint8_t key[32])
{
    return store_master_key_from_file(path, data, may_create, key);
}

static void
write_key(const char *text, mode_t mode)
{
    char keys[FOLDER_PATH_SIZE + 16];
    (void)snprintf(keys, sizeof keys, "%s/keys", folder);
    (void)mkdir(keys, 0700);
    (void)unlink(path);
    int fd = open(path, O_CREAT | O_WRONLY, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    assert_int_equal(fchmod(fd, mode), 0);
    close(fd);
}

static void
created_once_and_found_again(void **state)
{
    (void)state;
    uint8_t first[32], second[32];
    struct stat st;
    assert_int_equal(load(false, first), -CQ_E_CONFIG); /* a database that is not new has had one */
    mode_t old = umask(0);
    assert_int_equal(load(true, first), 0);
    umask(old);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(st.st_size, 65);
    assert_false(sodium_is_zero(first, sizeof first));
    assert_int_equal(load(true, second), 0);
    assert_memory_equal(first, second, 32);
    assert_int_equal(load(false, second), 0);
    assert_memory_equal(first, second, 32);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(load(false, second), -CQ_E_CONFIG);
}

static void
text_is_64_digits_and_a_newline(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int rc;
    } cases[] = {
        {DIGITS, 0},
        {DIGITS "\n", 0},
        {"", -CQ_E_CONFIG},
        {"\n", -CQ_E_CONFIG},
        {DIGITS "\n\n", -CQ_E_CONFIG},
        {DIGITS "0", -CQ_E_CONFIG},
        {DIGITS "00", -CQ_E_CONFIG},
        {" " DIGITS, -CQ_E_CONFIG},
        {"00010203", -CQ_E_CONFIG},
        {"g00102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f", -CQ_E_CONFIG},
        {"00:102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f", -CQ_E_CONFIG},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint8_t key[32];
        write_key(cases[i].text, 0600);
        assert_int_equal(load(true, key), cases[i].rc);
        char command[300];
        (void)snprintf(command, sizeof command, "cat '%s'", path);
        assert_int_equal(store_master_key_from_command(command, key), cases[i].rc);
        if (cases[i].rc == 0) {
            for (int j = 0; j < 32; j++) {
                assert_int_equal(key[j], j);
            }
        }
    }
}

static void
open_to_others_is_refused(void **state)
{
    (void)state;
    static const mode_t modes[] = {0640, 0604, 0620, 0602, 0610, 0777};
    uint8_t key[32];
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        write_key(DIGITS, modes[i]);
        assert_int_equal(load(true, key), -CQ_E_CONFIG);
    }
    write_key(DIGITS, 0400);
    assert_int_equal(load(true, key), 0);
}

static void
other_owner_is_refused(void **state)
{
    (void)state;
    uint8_t key[32];
    write_key(DIGITS, 0600);
    if (geteuid() != 0) {
        skip();
    }
    assert_int_equal(chown(path, 65534, 65534), 0);
    assert_int_equal(load(true, key), -CQ_E_CONFIG);
}

static void
not_a_file_is_refused(void **state)
{
    (void)state;
    uint8_t key[32];
    write_key(DIGITS, 0600);
    unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(load(true, key), -CQ_E_CONFIG); /* and does not wait for a writer */
    unlink(path);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(load(true, key), -CQ_E_CONFIG);
    rmdir(path);
    assert_int_equal(symlink("/nonexistent/x", path), 0);
    assert_int_equal(load(true, key), -CQ_E_CONFIG); /* creates nothing through a link */
}

static void
inside_the_data_folder_is_refused(void **state)
{
    (void)state;
    uint8_t key[32];
    char real[FOLDER_PATH_SIZE + 32];
    /* directly, deeper, by a detour, through a link */
    static const char *const places[] = {"data/master.key", "data/sub/master.key",
                                         "keys/../data/master.key"};
    write_key(DIGITS, 0600);
    for (size_t i = 0; i < 3; i++) {
        (void)snprintf(path, sizeof path, "%s/%s", folder, places[i]);
        assert_int_equal(load(true, key), -CQ_E_CONFIG);
        assert_int_not_equal(access(path, F_OK), 0);
    }
    (void)snprintf(path, sizeof path, "%s/data-not/master.key", folder);
    assert_int_equal(load(true, key), 0); /* a like name is not inside */
    (void)snprintf(real, sizeof real, "%s/data/real.key", folder);
    assert_int_equal(rename(path, real), 0);
    assert_int_equal(symlink(real, path), 0);
    assert_int_equal(load(true, key), -CQ_E_CONFIG);
}

static void
command_that_fails_or_floods_is_refused(void **state)
{
    (void)state;
    uint8_t key[32];
    assert_int_equal(store_master_key_from_command("echo " DIGITS, key), 0);
    assert_int_equal(store_master_key_from_command("echo " DIGITS "; exit 3", key), -CQ_E_CONFIG);
    assert_int_equal(store_master_key_from_command("exec /nonexistent/kms 2>/dev/null", key),
                     -CQ_E_CONFIG);
    assert_int_equal(store_master_key_from_command("yes", key), -CQ_E_CONFIG);
    assert_int_equal(store_master_key_from_command("true", key), -CQ_E_CONFIG);
}

int
main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(created_once_and_found_again),
        TEST(text_is_64_digits_and_a_newline),
        TEST(open_to_others_is_refused),
        TEST(other_owner_is_refused),
        TEST(not_a_file_is_refused),
        TEST(inside_the_data_folder_is_refused),
        TEST(command_that_fails_or_floods_is_refused),
    };
    if (sodium_init() < 0) {
        return 1;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
