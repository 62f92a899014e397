/* SPDX-License-Identifier: MPL-2.0
 * Findings: counted, the first ones kept with the row's name in words, printed.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/rt/check.h"
#include "common/rt/log.h"

#include "store/fsck_impl.h"

static const char *const table_names[] = {
#define X(name, text) text,
    STORE_TABLES(X)
#undef X
};

static const struct {
    const char *word;
    const char *text;
} kinds[] = {
#define X(name, word, text) {word, text},
    STORE_FSCK_KINDS(X)
#undef X
};

/* What the ids of a key are. */
static const struct {
    const char *first, *second;
    size_t kind_size, seq_size;
} keys[STORE_TABLE_COUNT] = {
    [STORE_TABLE_ACCOUNT] = {"user", NULL, 0, 0},
    [STORE_TABLE_DEVICE] = {"user", "device", 0, 0},
    [STORE_TABLE_OWNER] = {"device", NULL, 0, 0},
    [STORE_TABLE_USER] = {"user", "peer", 0, 0},
    [STORE_TABLE_BLOB] = {"blob", NULL, 0, 0},
    [STORE_TABLE_BLOB_USE] = {"user", NULL, 0, 0},
    [STORE_TABLE_BLOB_READER] = {"blob", "user", 0, 0},
    [STORE_TABLE_INDEX] = {"chat", NULL, 0, sizeof(uint64_t)},
    [STORE_TABLE_CHAT] = {"chat", NULL, 0, 0},
    [STORE_TABLE_RECEIPT] = {"chat", "id", 1, sizeof(uint64_t)},
    [STORE_TABLE_UNREAD] = {"chat", "user", 0, 0},
    [STORE_TABLE_READ] = {"chat", "sender", 0, 0},
};

const char *
store_fsck_kind_word(enum store_fsck_kind kind)
{
    return kinds[kind].word;
}

const char *
store_fsck_kind_text(enum store_fsck_kind kind)
{
    return kinds[kind].text;
}

static void
name_text(char *out, size_t size, const char *table, struct cq_view text)
{
    char escaped[80];
    (void)snprintf(out, size, "%s %s", table, cq_log_text(text.p, text.n, escaped, sizeof escaped));
}

static void
name_bytes(char *out, size_t size, const char *table, struct cq_view key)
{
    int n = snprintf(out, size, "%s key=", table);
    for (size_t i = 0; i < key.n && i < 40 && n > 0 && (size_t)n + 3 < size; i++) {
        n += snprintf(out + n, size - (size_t)n, "%02x", key.p[i]);
    }
}

/* A row in words. */
static void
name_row(char *out, size_t size, enum store_table t, struct cq_view key)
{
    const char *table = table_names[t];
    size_t kind_size = keys[t].kind_size;
    size_t seq_size = keys[t].seq_size;
    size_t expected =
        2 + CQ_ID_SIZE * (size_t)(1 + (keys[t].second != NULL)) + kind_size + seq_size;
    if (t == STORE_TABLE_META || (t == STORE_TABLE_NAME && key.n > 2)) {
        size_t skip = t == STORE_TABLE_META ? 0 : 2;
        name_text(out, size, table, (struct cq_view){key.p + skip, key.n - skip});
        return;
    }
    if (!keys[t].first || key.n != expected) {
        name_bytes(out, size, table, key);
        return;
    }
    struct cq_id id;
    char hex[CQ_ID_HEX_SIZE];
    memcpy(id.b, key.p + 2, CQ_ID_SIZE);
    int n = snprintf(out, size, "%s %s=%s", table, keys[t].first, cq_id_hex(&id, hex));
    if (kind_size) {
        bool is_read = key.p[2 + CQ_ID_SIZE] == STORE_RECEIPT_READ;
        n += snprintf(out + n, size - (size_t)n, " %s", is_read ? "read" : "delivered");
    }
    if (keys[t].second) {
        memcpy(id.b, key.p + 2 + CQ_ID_SIZE + kind_size, CQ_ID_SIZE);
        n += snprintf(out + n, size - (size_t)n, " %s=%s", keys[t].second, cq_id_hex(&id, hex));
    }
    if (seq_size) {
        uint64_t seq = 0;
        for (size_t i = key.n - seq_size; i < key.n; i++) {
            seq = seq << 8 | key.p[i];
        }
        (void)snprintf(out + n, size - (size_t)n, " seq=%" PRIu64, seq);
    }
}

/* The next finding's place, or NULL if the report is full. Counts it in any case. */
static struct store_fsck_finding *
add_to(struct store_fsck_report *r, enum store_fsck_kind kind, const char *is, const char *should)
{
    r->found++;
    r->counts[kind]++;
    if (r->finding_count == r->findings_max) {
        return NULL;
    }
    if (r->finding_count == r->finding_room) {
        r->finding_room = r->finding_room ? 2 * r->finding_room : 16;
        r->findings = realloc(r->findings, r->finding_room * sizeof *r->findings);
        CQ_ASSERT(r->findings);
    }
    struct store_fsck_finding *new = &r->findings[r->finding_count++];
    *new = (struct store_fsck_finding){.kind = kind};
    (void)snprintf(new->is, sizeof new->is, "%s", is);
    (void)snprintf(new->should, sizeof new->should, "%s", should);
    return new;
}

static struct store_fsck_finding *
add(struct store_fsck *f, enum store_fsck_kind kind, const char *is, const char *should)
{
    return add_to(f->report, kind, is, should);
}

void
store_fsck_report_find(struct store_fsck_report *report,
                       enum store_fsck_kind kind,
                       const char *where,
                       const char *is,
                       const char *should)
{
    struct store_fsck_finding *new = add_to(report, kind, is, should);
    if (new) {
        (void)snprintf(new->where, sizeof new->where, "%s", where);
    }
}

void
store_fsck_find_row(struct store_fsck *f,
                    enum store_fsck_kind kind,
                    enum store_table t,
                    struct cq_view key,
                    const char *is,
                    const char *should)
{
    struct store_fsck_finding *new = add(f, kind, is, should);
    if (new) {
        name_row(new->where, sizeof new->where, t, key);
    }
}

void
store_fsck_find_record(struct store_fsck *f,
                       enum store_fsck_kind kind,
                       uint64_t pos,
                       const char *is,
                       const char *should)
{
    struct store_fsck_finding *new = add(f, kind, is, should);
    if (new) {
        (void)snprintf(new->where, sizeof new->where, "log pos=%" PRIu64, pos);
    }
}

void
store_fsck_find_restore(struct store_fsck *f, const struct store_fsck_report *before)
{
    struct store_fsck_report *r = f->report;
    r->found = before->found;
    memcpy(r->counts, before->counts, sizeof r->counts);
    r->finding_count = before->finding_count;
    r->records = before->records;
    r->chats = before->chats;
    r->messages = before->messages;
}

struct store_fsck_text
store_fsck_find_number(const char *what, uint64_t n)
{
    struct store_fsck_text text;
    (void)snprintf(text.s, sizeof text.s, "%s %" PRIu64, what, n);
    return text;
}

struct store_fsck_text
store_fsck_find_id(const char *what, const struct cq_id *id)
{
    struct store_fsck_text text;
    char hex[CQ_ID_HEX_SIZE];
    (void)snprintf(text.s, sizeof text.s, "%s %s", what, cq_id_hex(id, hex));
    return text;
}

bool
store_fsck_find_key(struct store_fsck *f,
                    enum store_table t,
                    struct cq_view key,
                    size_t id_count,
                    size_t rest_size)
{
    struct cq_id id;
    if (key.n != 2 + CQ_ID_SIZE * id_count + rest_size) {
        store_fsck_find_row(
            f, STORE_FSCK_ROW_KEY, t, key, store_fsck_find_number("bytes", key.n).s,
            store_fsck_find_number("bytes", 2 + CQ_ID_SIZE * id_count + rest_size).s);
        return false;
    }
    memcpy(id.b, key.p + 2, CQ_ID_SIZE);
    uint64_t partition = (uint64_t)key.p[0] << 8 | key.p[1];
    if (partition != cq_id_partition(&id)) {
        store_fsck_find_row(f, STORE_FSCK_ROW_KEY, t, key,
                            store_fsck_find_number("partition", partition).s,
                            store_fsck_find_number("partition", cq_id_partition(&id)).s);
        return false;
    }
    return true;
}

void
store_fsck_report_free(struct store_fsck_report *report)
{
    free(report->findings);
    *report = (struct store_fsck_report){0};
}

void
store_fsck_print(FILE *to, const struct store_fsck_report *r)
{
    for (size_t i = 0; i < r->finding_count; i++) {
        const struct store_fsck_finding *f = &r->findings[i];
        (void)fprintf(to, "%-16s %s\n%-16s is:     %s\n%-16s should: %s\n", kinds[f->kind].word,
                      f->where, "", f->is, "", f->should);
    }
    if (r->found > r->finding_count) {
        (void)fprintf(to, "… and %" PRIu64 " more\n", r->found - r->finding_count);
    }
    for (size_t i = 0; i < STORE_FSCK_KIND_COUNT; i++) {
        if (r->counts[i]) {
            (void)fprintf(to, "%10" PRIu64 "  %-16s %s\n", r->counts[i], kinds[i].word,
                          kinds[i].text);
        }
    }
    (void)fprintf(to,
                  "%" PRIu64 " records, %" PRIu64 " messages, %" PRIu64 " chats, %" PRIu64
                  " users, %" PRIu64 " rows in %u passes, %" PRIu64 ".%03" PRIu64 " s: %" PRIu64
                  " findings\n",
                  r->records, r->messages, r->chats, r->users, r->rows, r->passes,
                  r->took_ms / 1000, r->took_ms % 1000, r->found);
}

int
store_fsck_exit_code(int rc, const struct store_fsck_report *report)
{
    return rc ? 2 : report->found ? 1 : 0;
}
