/* SPDX-License-Identifier: MPL-2.0
 * Values are collected as text first (defaults, file, command line), then each is checked, and only
 * then *cfg is written.
 */
#include "common/rt/config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <czmq.h>

#include "common/rt/check.h"
#include "common/rt/log.h"
#include "common/wire/name.h"

enum {
    FILE_MAX_BYTES = 1048576,
    LINE_MAX_BYTES = 4096,
    WHERE_MAX = 512
};

struct value {
    char *text;            /* NULL: not given */
    char where[WHERE_MAX]; /* "FILE:LINE: " or "" */
};

struct loader {
    const struct cq_config_item *items;
    size_t count;
    const char *program;
    struct value *values; /* one for each item */
    bool check_only;
};

static int
find_item(const struct loader *l, const char *key, size_t n)
{
    for (size_t i = 0; i < l->count; i++) {
        if (strlen(l->items[i].key) == n && memcmp(l->items[i].key, key, n) == 0) {
            return (int)i;
        }
    }
    return -1;
}

static void
set_value(struct loader *l, size_t i, const char *text, const char *where)
{
    free(l->values[i].text);
    l->values[i].text = strdup(text);
    CQ_ASSERT(l->values[i].text);
    (void)snprintf(l->values[i].where, sizeof l->values[i].where, "%s", where);
}

/* ---- the file ---- */

/* zconfig forgets the lines: the last line that starts with the key, 0 if there is none. */
static int
line_of(const char *path, const char *key)
{
    FILE *f = fopen(path, "re");
    if (!f) {
        return 0;
    }
    char line[LINE_MAX_BYTES];
    int number = 0;
    int found = 0;
    while (fgets(line, sizeof line, f)) {
        number++;
        const char *p = line + strspn(line, " \t");
        size_t n = strcspn(p, " \t=\r\n#");
        if (n == strlen(key) && memcmp(p, key, n) == 0) {
            found = number;
        }
    }
    (void)fclose(f);
    return found;
}

static int
take_file_entry(struct loader *l, const char *path, zconfig_t *node)
{
    const char *key = zconfig_name(node);
    char where[WHERE_MAX];
    (void)snprintf(where, sizeof where, "%s:%d: ", path, line_of(path, key));
    int i = find_item(l, key, strlen(key));
    if (i < 0) {
        (void)fprintf(stderr, "%s: %sunknown key \"%s\" (see --help)\n", l->program, where, key);
        return -CQ_E_CONFIG;
    }
    if (zconfig_child(node)) {
        (void)fprintf(stderr, "%s: %s%s: has entries below it, must be a value\n", l->program,
                      where, key);
        return -CQ_E_CONFIG;
    }
    set_value(l, (size_t)i, zconfig_value(node) ? zconfig_value(node) : "", where);
    return 0;
}

/* The file's text, or NULL (said why). zconfig_load() would leak on a syntax error. */
static char *
slurp(const struct loader *l, const char *path)
{
    struct stat st;
    FILE *f = fopen(path, "re");
    if (!f || fstat(fileno(f), &st) != 0 || !S_ISREG(st.st_mode)) {
        (void)fprintf(stderr, "%s: --config: cannot read the file \"%s\"\n", l->program, path);
    } else if (st.st_size > FILE_MAX_BYTES) {
        (void)fprintf(stderr, "%s: --config: \"%s\" is larger than 1 MiB\n", l->program, path);
    } else {
        char *text = cq_alloc((size_t)st.st_size + 1);
        size_t n = fread(text, 1, (size_t)st.st_size, f);
        text[n] = '\0';
        (void)fclose(f);
        return text;
    }
    if (f) {
        (void)fclose(f);
    }
    return NULL;
}

static int
load_file(struct loader *l, const char *path)
{
    char *text = slurp(l, path);
    if (!text) {
        return -CQ_E_CONFIG;
    }
    bool is_empty = text[strspn(text, " \t\r\n")] == '\0';
    zconfig_t *root = is_empty ? NULL : zconfig_str_load(text);
    free(text);
    if (!root && !is_empty) {
        (void)fprintf(stderr, "%s: %s: cannot be read as a list of \"key = value\" lines\n",
                      l->program, path);
        return -CQ_E_CONFIG;
    }
    int rc = 0;
    for (zconfig_t *node = root ? zconfig_child(root) : NULL; node && rc == 0;
         node = zconfig_next(node)) {
        rc = take_file_entry(l, path, node);
    }
    zconfig_destroy(&root);
    return rc;
}

/* ---- the command line ---- */

static void
print_help(const struct loader *l)
{
    (void)printf("usage: %s [--config FILE] [--key value]...\n\n", l->program);
    (void)printf("Keys, on the command line as --key value and in the file as key = value:\n");
    for (size_t i = 0; i < l->count; i++) {
        const struct cq_config_item *item = &l->items[i];
        (void)printf("  --%-24s %s", item->key, item->doc);
        if (item->type == CQ_CONFIG_UINT) {
            (void)printf(" [%" PRIu64 "..%" PRIu64 "%s%s]", item->min, item->max,
                         item->unit[0] ? " " : "", item->unit);
        }
        if (item->preset) {
            (void)printf(" (default: %s)\n", item->preset[0] ? item->preset : "empty");
        } else {
            (void)printf(" (required)\n");
        }
    }
    (void)printf("\nOther options:\n"
                 "  --%-24s read keys from FILE first\n"
                 "  --%-24s check the configuration and exit\n"
                 "  --%-24s print the version and exit\n"
                 "  --%-24s print this and exit\n",
                 "config FILE", "check-config", "version", "help");
}

/* --help, --version, --check-config. 1: exit now. */
static int
take_flag(struct loader *l, const char *name)
{
    if (strcmp(name, "help") == 0) {
        print_help(l);
        return 1;
    }
    if (strcmp(name, "version") == 0) {
        (void)printf("%s %s\n", l->program, CQ_VERSION);
        return 1;
    }
    return 0;
}

struct option {
    const char *name; /* behind the -- */
    size_t name_size;
    const char *value;
};

/* Splits argv[*at] (and takes its successor as value if it needs one). Index of the item, l->count
 * for --config. */
static int
read_option(const struct loader *l, int argc, char **argv, int *at, struct option *o)
{
    const char *arg = argv[*at];
    if (strncmp(arg, "--", 2) != 0 || !arg[2]) {
        (void)fprintf(stderr, "%s: unexpected argument \"%s\" (see --help)\n", l->program, arg);
        return -CQ_E_CONFIG;
    }
    o->name = arg + 2;
    o->name_size = strcspn(o->name, "=");
    int i = find_item(l, o->name, o->name_size);
    if (i < 0 && !(o->name_size == 6 && memcmp(o->name, "config", 6) == 0)) {
        (void)fprintf(stderr, "%s: unknown option \"--%.*s\" (see --help)\n", l->program,
                      (int)o->name_size, o->name);
        return -CQ_E_CONFIG;
    }
    if (o->name[o->name_size] == '=') {
        o->value = o->name + o->name_size + 1;
        return i < 0 ? (int)l->count : i;
    }
    bool has_next = *at + 1 < argc;
    if (i >= 0 && l->items[i].type == CQ_CONFIG_BOOL &&
        (!has_next || strncmp(argv[*at + 1], "--", 2) == 0)) {
        o->value = "true";
        return i;
    }
    if (!has_next) {
        (void)fprintf(stderr, "%s: --%s: a value is missing\n", l->program, o->name);
        return -CQ_E_CONFIG;
    }
    o->value = argv[++*at];
    return i < 0 ? (int)l->count : i;
}

/* One pass over the arguments: first for the file, then for the keys, so that the command line wins
 * wherever it stands. */
static int
load_arguments(struct loader *l, int argc, char **argv, bool files)
{
    for (int at = 1; at < argc; at++) {
        if (strcmp(argv[at], "--check-config") == 0) {
            l->check_only = true;
            continue;
        }
        if (strncmp(argv[at], "--", 2) == 0 && take_flag(l, argv[at] + 2) == 1) {
            return 1;
        }
        struct option o;
        int i = read_option(l, argc, argv, &at, &o);
        if (i < 0) {
            return i;
        }
        bool is_file = (size_t)i == l->count;
        if (is_file && files) {
            int rc = load_file(l, o.value);
            if (rc) {
                return rc;
            }
        } else if (!is_file && !files) {
            set_value(l, (size_t)i, o.value, "");
        }
    }
    return 0;
}

/* ---- checks ---- */

static bool
read_uint(const char *s, uint64_t *out)
{
    if (s[0] < '0' || s[0] > '9') {
        return false;
    }
    char *end = NULL;
    errno = 0;
    unsigned long long v = strtoull(s, &end, 10);
    *out = v;
    return errno == 0 && *end == '\0';
}

static int
read_bool(const char *s)
{
    static const struct {
        const char *word;
        int value;
    } words[] = {{"true", 1}, {"false", 0}, {"yes", 1}, {"no", 0},
                 {"on", 1},   {"off", 0},   {"1", 1},   {"0", 0}};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (strcmp(words[i].word, s) == 0) {
            return words[i].value;
        }
    }
    return -1;
}

static int
complain(const struct loader *l, size_t i, const char *allowed)
{
    const struct value *v = &l->values[i];
    (void)fprintf(stderr, "%s: %s%s: \"%.128s\" is not %s\n", l->program, v->where, l->items[i].key,
                  v->text, allowed);
    return -CQ_E_CONFIG;
}

static int
check_item(const struct loader *l, size_t i)
{
    const struct cq_config_item *item = &l->items[i];
    const char *text = l->values[i].text;
    char allowed[128];
    if (!text) {
        (void)fprintf(stderr, "%s: %s: must be given (see --help)\n", l->program, item->key);
        return -CQ_E_CONFIG;
    }
    if (item->type == CQ_CONFIG_BOOL) {
        return read_bool(text) >= 0 ? 0 : complain(l, i, "true or false");
    }
    if (item->type == CQ_CONFIG_UINT) {
        uint64_t v = 0;
        (void)snprintf(allowed, sizeof allowed,
                       "a whole number from %" PRIu64 " to %" PRIu64 "%s%s", item->min, item->max,
                       item->unit[0] ? " " : "", item->unit);
        bool ok = read_uint(text, &v) && v >= item->min && v <= item->max;
        return ok ? 0 : complain(l, i, allowed);
    }
    (void)snprintf(allowed, sizeof allowed, "a text of %" PRIu64 " to %" PRIu64 " bytes", item->min,
                   item->max);
    size_t n = strlen(text);
    return n >= item->min && n <= item->max ? 0 : complain(l, i, allowed);
}

static void
apply_item(const struct cq_config_item *item, struct value *v, void *cfg)
{
    void *place = (char *)cfg + item->offset;
    switch (item->type) {
    case CQ_CONFIG_STR:
        *(char **)place = v->text;
        v->text = NULL;
        break;
    case CQ_CONFIG_UINT:
        (void)read_uint(v->text, place);
        break;
    case CQ_CONFIG_BOOL:
        *(bool *)place = read_bool(v->text) == 1;
        break;
    }
}

static int
load_all(struct loader *l, int argc, char **argv)
{
    for (size_t i = 0; i < l->count; i++) {
        if (l->items[i].preset) {
            set_value(l, i, l->items[i].preset, "");
        }
    }
    int rc = load_arguments(l, argc, argv, true);
    rc = rc ? rc : load_arguments(l, argc, argv, false);
    for (size_t i = 0; i < l->count && rc == 0; i++) {
        rc = check_item(l, i);
    }
    return rc;
}

int
cq_config_load(const struct cq_config_item *items,
               size_t count,
               const char *program,
               int argc,
               char **argv,
               void *cfg)
{
    struct loader l = {items, count, program, cq_alloc(count * sizeof(struct value)), false};
    int rc = load_all(&l, argc, argv);
    if (rc == 0 && l.check_only) {
        (void)printf("%s: the configuration is valid\n", program);
        rc = 1;
    }
    for (size_t i = 0; i < count; i++) {
        if (rc == 0) {
            apply_item(&items[i], &l.values[i], cfg);
        }
        free(l.values[i].text);
    }
    free(l.values);
    return rc;
}

int
cq_config_check_actor(const char *program, const char *name, const char *log_level)
{
    if (!cq_actor_name_ok(name, strlen(name))) {
        (void)fprintf(stderr, "%s: name: only a-z 0-9 . _ - are allowed\n", program);
        return -CQ_E_CONFIG;
    }
    if (cq_log_level_by_name(log_level) < 0) {
        (void)fprintf(stderr, "%s: log-level: must be debug, info, warn or error\n", program);
        return -CQ_E_CONFIG;
    }
    return 0;
}

void
cq_config_free(const struct cq_config_item *items, size_t count, void *cfg)
{
    for (size_t i = 0; i < count; i++) {
        if (items[i].type == CQ_CONFIG_STR) {
            char **place = (char **)(void *)((char *)cfg + items[i].offset);
            free(*place);
            *place = NULL;
        }
    }
}
