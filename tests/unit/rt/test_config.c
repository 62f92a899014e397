/* SPDX-License-Identifier: MPL-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/rt/config.h"

struct cfg {
    char *name;
    uint64_t port;
    bool fast;
};

static const struct cq_config_item items[] = {
    {"name", CQ_CONFIG_STR, offsetof(struct cfg, name), NULL, 1, 8, "", "who"},
    {"listen-port", CQ_CONFIG_UINT, offsetof(struct cfg, port), "8080", 1, 65535, "", "where"},
    {"fast", CQ_CONFIG_BOOL, offsetof(struct cfg, fast), "no", 0, 0, "", "how"},
};

enum {
    ITEMS = sizeof items / sizeof items[0],
    ARGS_MAX = 12,
    OUTPUT_MAX = 4096
};

static char output[OUTPUT_MAX]; /* what the last load printed on stderr and stdout */

/* Arguments split at spaces. */
static int
load(const char *line, struct cfg *cfg)
{
    char text[1024];
    char program[] = "program";
    char *argv[ARGS_MAX] = {program};
    int argc = 1;
    char *save = NULL;
    (void)snprintf(text, sizeof text, "%s", line);
    for (char *word = strtok_r(text, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
        argv[argc++] = word;
    }
    FILE *f = tmpfile();
    (void)fflush(stdout);
    int old_err = dup(STDERR_FILENO);
    int old_out = dup(STDOUT_FILENO);
    (void)dup2(fileno(f), STDERR_FILENO);
    (void)dup2(fileno(f), STDOUT_FILENO);
    int rc = cq_config_load(items, ITEMS, "program", argc, argv, cfg);
    (void)fflush(stdout);
    (void)dup2(old_err, STDERR_FILENO);
    (void)dup2(old_out, STDOUT_FILENO);
    (void)close(old_err);
    (void)close(old_out);
    rewind(f);
    size_t n = fread(output, 1, sizeof output - 1, f);
    output[n] = '\0';
    (void)fclose(f);
    return rc;
}

static void
fails_naming(const char *line, const char *what)
{
    struct cfg cfg = {0};
    assert_int_equal(load(line, &cfg), -CQ_E_CONFIG);
    if (!strstr(output, what)) {
        print_message("\"%s\" printed: %s\n", line, output);
    }
    assert_non_null(strstr(output, what));
    assert_null(cfg.name);
    assert_int_equal(cfg.port, 0);
}

static const char *
write_file(const char *text)
{
    static char path[64];
    (void)snprintf(path, sizeof path, "/tmp/cq-config-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    (void)close(fd);
    return path;
}

static void
defaults_and_arguments(void **state)
{
    struct cfg cfg = {0};
    (void)state;
    assert_int_equal(load("--name x", &cfg), 0);
    assert_string_equal(cfg.name, "x");
    assert_int_equal(cfg.port, 8080);
    assert_false(cfg.fast);
    cq_config_free(items, ITEMS, &cfg);
    assert_null(cfg.name);
    assert_int_equal(load("--name=a=b --listen-port=1 --fast", &cfg), 0);
    assert_string_equal(cfg.name, "a=b");
    assert_int_equal(cfg.port, 1);
    assert_true(cfg.fast);
    cq_config_free(items, ITEMS, &cfg);
    assert_int_equal(load("--fast off --name y --name z", &cfg), 0);
    assert_string_equal(cfg.name, "z");
    assert_false(cfg.fast);
    cq_config_free(items, ITEMS, &cfg);
}

static void
file_then_arguments(void **state)
{
    struct cfg cfg = {0};
    char line[256];
    (void)state;
    const char *path =
        write_file("# a comment\nname = \"in file\"\nlisten-port = 99\nfast = true\n");
    (void)snprintf(line, sizeof line, "--listen-port 7 --config %s", path);
    assert_int_equal(load(line, &cfg), 0);
    assert_string_equal(cfg.name, "in file");
    assert_int_equal(cfg.port, 7);
    assert_true(cfg.fast);
    cq_config_free(items, ITEMS, &cfg);
    (void)unlink(path);
}

static void
bad_files(void **state)
{
    static const struct {
        const char *text;
        const char *what;
    } cases[] = {
        {"name = x\ncolour = red\n", ":2: unknown key \"colour\""},
        {"name = x\nlisten-port = many\n",
         ":2: listen-port: \"many\" is not a whole number from 1 to 65535"},
        {"name = x\nlisten-port\n    low = 1\n", ":2: listen-port: has entries below it"},
        {"name = x\nfast = maybe\n", ":2: fast: \"maybe\" is not true or false"},
        {"= = =\n", "cannot be read"},
    };
    char line[256];
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *path = write_file(cases[i].text);
        (void)snprintf(line, sizeof line, "--config %s", path);
        fails_naming(line, cases[i].what);
        (void)unlink(path);
    }
    fails_naming("--config /nowhere/at/all", "cannot read the file \"/nowhere/at/all\"");
    fails_naming("--config /tmp", "cannot read the file \"/tmp\"");
}

static void
bad_arguments(void **state)
{
    (void)state;
    fails_naming("", "name: must be given");
    fails_naming("--colour red", "unknown option \"--colour\"");
    fails_naming("name x", "unexpected argument \"name\"");
    fails_naming("--", "unexpected argument \"--\"");
    fails_naming("--name", "--name: a value is missing");
    fails_naming("--name= --fast", "name: \"\" is not a text of 1 to 8 bytes");
    fails_naming("--name 123456789", "is not a text of 1 to 8 bytes");
    fails_naming("--name x --listen-port 0", "listen-port: \"0\" is not");
    fails_naming("--name x --listen-port 65536", "listen-port");
    fails_naming("--name x --listen-port -1", "listen-port");
    fails_naming("--name x --listen-port +1", "listen-port");
    fails_naming("--name x --listen-port 1x", "listen-port");
    fails_naming("--name x --listen-port 99999999999999999999999", "listen-port");
    fails_naming("--name x --fast=2", "fast: \"2\" is not true or false");
}

static void
words_that_end(void **state)
{
    struct cfg cfg = {0};
    (void)state;
    assert_int_equal(load("--help", &cfg), 1);
    assert_non_null(strstr(output, "--listen-port"));
    assert_non_null(strstr(output, "[1..65535]"));
    assert_non_null(strstr(output, "(required)"));
    assert_int_equal(load("--version", &cfg), 1);
    assert_non_null(strstr(output, "program " CQ_VERSION));
    assert_int_equal(load("--name x --check-config", &cfg), 1);
    assert_non_null(strstr(output, "valid"));
    assert_null(cfg.name);
    fails_naming("--check-config --name x --listen-port 0", "listen-port");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_and_arguments),
        cmocka_unit_test(file_then_arguments),
        cmocka_unit_test(bad_files),
        cmocka_unit_test(bad_arguments),
        cmocka_unit_test(words_that_end),
    };
    return cmocka_run_group_tests_name("rt.config", tests, NULL, NULL);
}
