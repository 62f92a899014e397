/* SPDX-License-Identifier: MPL-2.0 */
#include "store/manifest.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <sodium.h>

#include "common/wire/name.h"

static const char format_key[] = "chasqui-backup";

enum {
    FORMAT = 1,
    LINE_BYTES = 512,
    DIGITS_MAX = 20,
    HASH_HEX_SIZE = 2 * STORE_MANIFEST_HASH_SIZE + 1
};

/* ---- writing ---- */

static void
append(cq_buf_t *b, const char *text)
{
    cq_buf_append(b, text, strlen(text));
}

static void
append_number(cq_buf_t *b, const char *key, uint64_t v)
{
    char line[LINE_BYTES];
    (void)snprintf(line, sizeof line, "%s %" PRIu64 "\n", key, v);
    append(b, line);
}

static void
append_text(cq_buf_t *b, const char *key, const char *text)
{
    char line[LINE_BYTES];
    (void)snprintf(line, sizeof line, "%s %s\n", key, text);
    append(b, line);
}

static void
hash_hex(const uint8_t hash[STORE_MANIFEST_HASH_SIZE], char hex[HASH_HEX_SIZE])
{
    (void)sodium_bin2hex(hex, HASH_HEX_SIZE, hash, STORE_MANIFEST_HASH_SIZE);
}

static void
sum_of(const uint8_t *data, size_t n, char hex[HASH_HEX_SIZE])
{
    uint8_t hash[STORE_MANIFEST_HASH_SIZE];
    (void)crypto_generichash(hash, sizeof hash, data, n, NULL, 0);
    hash_hex(hash, hex);
}

void
store_manifest_write(cq_buf_t *b, const struct store_manifest *m)
{
    char epoch[CQ_ID_HEX_SIZE];
    char hex[HASH_HEX_SIZE];
    char line[LINE_BYTES];
    size_t begin = b->size;
    append_number(b, format_key, FORMAT);
    append_number(b, "created_unix_ms", m->created_unix_ms);
    append_text(b, "version", m->version);
    append_number(b, "schema", m->schema);
    append_text(b, "epoch", cq_id_hex(&m->epoch, epoch));
    append_number(b, "head", m->head);
    append_number(b, "marker", m->marker);
    for (size_t i = 0; i < m->part_count; i++) {
        const struct store_manifest_part *p = &m->parts[i];
        hash_hex(p->hash, hex);
        (void)snprintf(line, sizeof line, "part %s %s %" PRIu64 " %s\n", p->name, p->file, p->bytes,
                       hex);
        append(b, line);
    }
    sum_of(b->data + begin, b->size - begin, hex);
    append_text(b, "sum", hex);
}

void
store_manifest_write_unfinished(cq_buf_t *b, uint64_t begun_unix_ms)
{
    append_text(b, format_key, "unfinished");
    append_number(b, "begun_unix_ms", begun_unix_ms);
    append(b, "This backup was not finished and cannot be used. If no backup runs, delete it.\n");
}

/* ---- reading ---- */

/* What is left; the first error sticks: every later call fails. */
struct scan {
    const char *p;
    const char *end;
    bool failed;
};

static bool
is_next(const struct scan *s, const char *word)
{
    size_t n = strlen(word);
    return !s->failed && (size_t)(s->end - s->p) >= n && memcmp(s->p, word, n) == 0;
}

static void
take(struct scan *s, const char *word)
{
    if (is_next(s, word)) {
        s->p += strlen(word);
    } else {
        s->failed = true;
    }
}

/* The characters up to `stop`, and stop itself; at most size - 1, at least one; all visible ASCII.
 */
static void
take_text(struct scan *s, char stop, char *out, size_t size)
{
    const char *end = s->failed ? NULL : memchr(s->p, stop, (size_t)(s->end - s->p));
    size_t n = end ? (size_t)(end - s->p) : 0;
    out[0] = '\0';
    if (n == 0 || n >= size) {
        s->failed = true;
        return;
    }
    for (size_t i = 0; i < n; i++) {
        s->failed |= s->p[i] <= ' ' || s->p[i] > '~';
    }
    memcpy(out, s->p, n);
    out[n] = '\0';
    s->p = end + 1;
}

/* Digits as store_manifest_write gives them: no sign, no leading zeroes. */
static uint64_t
take_number(struct scan *s, char stop)
{
    char digits[DIGITS_MAX + 1];
    uint64_t v = 0;
    take_text(s, stop, digits, sizeof digits);
    for (const char *p = digits; *p; p++) {
        uint64_t d = (uint64_t)(*p - '0');
        if (*p < '0' || *p > '9' || v > (UINT64_MAX - d) / 10) {
            s->failed = true;
            return 0;
        }
        v = v * 10 + d;
    }
    s->failed |= digits[0] == '0' && digits[1];
    return v;
}

static void
take_hex(struct scan *s, uint8_t *out, size_t size)
{
    char hex[HASH_HEX_SIZE];
    size_t n = 0;
    take_text(s, '\n', hex, sizeof hex);
    bool is_hex = strlen(hex) == 2 * size && strspn(hex, "0123456789abcdef") == 2 * size &&
                  sodium_hex2bin(out, size, hex, strlen(hex), NULL, &n, NULL) == 0;
    s->failed |= !is_hex || n != size;
}

/* Plain names only: a manifest must not lead out of its folder. */
static void
take_name(struct scan *s, char *out, size_t size)
{
    take_text(s, ' ', out, size);
    size_t n = strlen(out);
    for (size_t i = 0; i < n; i++) {
        s->failed |= !cq_actor_name_ok(&out[i], 1);
    }
    s->failed |= out[0] == '.';
}

static void
take_part(struct scan *s, struct store_manifest *m)
{
    if (m->part_count == STORE_MANIFEST_PARTS_MAX) {
        s->failed = true;
        return;
    }
    struct store_manifest_part *p = &m->parts[m->part_count];
    take(s, "part ");
    take_name(s, p->name, sizeof p->name);
    take_name(s, p->file, sizeof p->file);
    p->bytes = take_number(s, ' ');
    take_hex(s, p->hash, sizeof p->hash);
    s->failed |= store_manifest_part_of(m, p->name) != NULL;
    m->part_count += !s->failed;
}

static void
take_sum(struct scan *s, struct cq_view bytes)
{
    char hex[HASH_HEX_SIZE];
    char expected[HASH_HEX_SIZE];
    size_t summed = (size_t)(s->p - (const char *)bytes.p);
    take(s, "sum ");
    take_text(s, '\n', hex, sizeof hex);
    if (!s->failed) {
        sum_of(bytes.p, summed, expected);
        s->failed = strcmp(hex, expected) != 0 || s->p != s->end;
    }
}

static int
check_format(struct scan *s)
{
    take(s, format_key);
    take(s, " ");
    if (is_next(s, "unfinished\n")) {
        return -CQ_E_BAD_STATE;
    }
    uint64_t format = take_number(s, '\n');
    if (s->failed || format == 0) {
        return -CQ_E_CORRUPT;
    }
    return format > FORMAT ? -CQ_E_NEWER_SCHEMA : 0;
}

int
store_manifest_read(struct cq_view bytes, struct store_manifest *m)
{
    memset(m, 0, sizeof *m);
    if (bytes.n == 0 || bytes.n > STORE_MANIFEST_BYTES_MAX) {
        return -CQ_E_CORRUPT;
    }
    struct scan s = {(const char *)bytes.p, (const char *)bytes.p + bytes.n, false};
    int rc = check_format(&s);
    if (rc) {
        return rc;
    }
    take(&s, "created_unix_ms ");
    m->created_unix_ms = take_number(&s, '\n');
    take(&s, "version ");
    take_text(&s, '\n', m->version, sizeof m->version);
    take(&s, "schema ");
    m->schema = take_number(&s, '\n');
    take(&s, "epoch ");
    take_hex(&s, m->epoch.b, sizeof m->epoch.b);
    take(&s, "head ");
    m->head = take_number(&s, '\n');
    take(&s, "marker ");
    m->marker = take_number(&s, '\n');
    do {
        take_part(&s, m);
    } while (is_next(&s, "part "));
    take_sum(&s, bytes);
    bool is_bad = s.failed || m->marker > m->head || cq_id_is_none(&m->epoch);
    return is_bad ? -CQ_E_CORRUPT : 0;
}

bool
store_manifest_is_ours(struct cq_view bytes)
{
    size_t n = sizeof format_key - 1;
    return bytes.n > n && memcmp(bytes.p, format_key, n) == 0;
}

const struct store_manifest_part *
store_manifest_part_of(const struct store_manifest *m, const char *name)
{
    for (size_t i = 0; i < m->part_count; i++) {
        if (strcmp(m->parts[i].name, name) == 0) {
            return &m->parts[i];
        }
    }
    return NULL;
}
