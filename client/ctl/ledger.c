/* SPDX-License-Identifier: MPL-2.0
 * ledger: the life of one message, as the store's log tells it.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "client/cli/output.h"
#include "client/ctl/ctl.h"

enum {
    HEX_SIZE = 2 * CQ_ID_SIZE + 1,
    STEP_COLUMNS = 4
};

struct printing {
    struct ctl *ctl;
    out_table_t *table; /* NULL: JSON */
    struct cq_life life;
    bool is_read; /* the answer could be read */
};

/* 32 hex digits? */
static bool
parse_id(const char *text, struct cq_id *id)
{
    static const char digits[] = "0123456789abcdef";
    if (strlen(text) != HEX_SIZE - 1 || strspn(text, digits) != HEX_SIZE - 1) {
        return false;
    }
    for (size_t i = 0; i < CQ_ID_SIZE; i++) {
        size_t high = (size_t)(strchr(digits, text[2 * i]) - digits);
        size_t low = (size_t)(strchr(digits, text[2 * i + 1]) - digits);
        id->b[i] = (uint8_t)(16 * high + low);
    }
    return true;
}

/* The name of a member, hex of the id if it has none. */
static void
name_of(const struct cq_life *life, const struct cq_id *user, char out[HEX_SIZE])
{
    cq_reader_t r = cq_list_reader(&life->members);
    cq_id_hex(user, out);
    for (size_t i = 0; i < life->members.count; i++) {
        struct cq_life_member m;
        if (cq_schema_read_array(&cq_life_member_schema, &r, &m)) {
            return;
        }
        if (cq_id_eq(&m.user, user) && m.name.n) {
            (void)snprintf(out, HEX_SIZE, "%.*s", (int)m.name.n, (const char *)m.name.p);
        }
    }
}

struct step {
    const char *name;
    const struct cq_id *user;
    const struct cq_id *device; /* NULL: none */
    struct cq_view label;
    uint64_t time_unix_ms;
    bool is_revoked;
};

static void
print_step_json(const struct printing *p, const struct step *s, const char *name)
{
    cq_buf_t *line = &p->ctl->line;
    char hex[HEX_SIZE];
    json_begin(line, "ledger");
    json_str(line, "step", s->name);
    json_str(line, "chat", cq_id_hex(&p->life.chat, hex));
    json_uint(line, "seq", p->life.seq);
    json_uint(line, "position", p->life.pos);
    if (s->time_unix_ms) {
        json_uint(line, "time_unix_ms", s->time_unix_ms);
    } else {
        json_null(line, "time_unix_ms");
    }
    if (s->user) {
        json_str(line, "name", name);
        json_str(line, "user", cq_id_hex(s->user, hex));
    }
    if (s->device) {
        json_str(line, "device", cq_id_hex(s->device, hex));
        json_text(line, "label", (const char *)s->label.p, s->label.n);
        json_bool(line, "revoked", s->is_revoked);
    }
    json_end(line);
}

static void
print_step(const struct printing *p, const struct step *s)
{
    char name[HEX_SIZE] = "";
    char when[64] = "not yet";
    char after[64] = "";
    char where[256] = "";
    char hex[HEX_SIZE];
    if (s->user) {
        name_of(&p->life, s->user, name);
    }
    if (!p->table) {
        print_step_json(p, s, name);
        return;
    }
    if (s->time_unix_ms) {
        char elapsed[48];
        out_stamp(s->time_unix_ms, cq_now_unix_ms(), when, sizeof when);
        (void)snprintf(after, sizeof after, "+ %s",
                       out_after(p->life.time_unix_ms, s->time_unix_ms, elapsed, sizeof elapsed));
    } else if (!s->user) {
        (void)snprintf(when, sizeof when, "yes");
    }
    if (!s->user) {
        (void)snprintf(where, sizeof where, "the store's disk%s",
                       s->time_unix_ms ? "" : "; when is not in its log");
    }
    if (s->user == &p->life.user) {
        after[0] = '\0'; /* accepted: where the others are counted from */
    }
    if (s->device) {
        char *label = out_safe((const char *)s->label.p, s->label.n, 32);
        (void)snprintf(where, sizeof where, "%s, device %s%s%s%s", name, cq_id_hex(s->device, hex),
                       label[0] ? ", " : "", label, s->is_revoked ? ", revoked" : "");
        free(label);
    } else if (s->user) {
        (void)snprintf(where, sizeof where, "%s", name);
    }
    const char *const cells[] = {s->name, when, after, where};
    out_table_row(p->table, cells, NULL);
}

static int
print_devices(const struct printing *p)
{
    cq_reader_t r = cq_list_reader(&p->life.devices);
    for (size_t i = 0; i < p->life.devices.count; i++) {
        struct cq_life_device d;
        if (cq_schema_read_array(&cq_life_device_schema, &r, &d)) {
            return -CQ_E_BAD_ARG;
        }
        print_step(p, &(struct step){"delivered", &d.user, &d.device, d.label, d.delivered_unix_ms,
                                     d.revoked});
    }
    return 0;
}

static int
print_reads(const struct printing *p)
{
    cq_reader_t r = cq_list_reader(&p->life.members);
    for (size_t i = 0; i < p->life.members.count; i++) {
        struct cq_life_member m;
        if (cq_schema_read_array(&cq_life_member_schema, &r, &m)) {
            return -CQ_E_BAD_ARG;
        }
        if (!cq_id_eq(&m.user, &p->life.user)) {
            print_step(
                p, &(struct step){.name = "read", .user = &m.user, .time_unix_ms = m.read_unix_ms});
        }
    }
    return 0;
}

static void
on_life(void *ctx, cq_reader_t *fields, size_t count)
{
    struct printing *p = ctx;
    const struct cq_life *life = &p->life;
    if (cq_schema_read(&cq_life_schema, fields, count, &p->life)) {
        return;
    }
    print_step(p, &(struct step){.name = "accepted",
                                 .user = &life->user,
                                 .device = &life->device,
                                 .time_unix_ms = life->time_unix_ms});
    print_step(p, &(struct step){.name = "durable", .time_unix_ms = life->durable_unix_ms});
    p->is_read = print_devices(p) == 0 && print_reads(p) == 0;
}

static int
take_words(struct ctl *ctl, const struct ctl_args *args, struct cq_bus_ledger *in)
{
    const char *seq = args->v[args->n - 1];
    if (args->n == 2 && !parse_id(args->v[0], &in->chat)) {
        return ctl_fail(ctl, CTL_USAGE, "USAGE", "CHAT is 32 hex digits, not \"%s\"", args->v[0]);
    }
    if (!ctl_number(seq, 1, UINT64_MAX, &in->seq)) {
        return ctl_fail(ctl, CTL_USAGE, "USAGE", "SEQ is a number from 1, not \"%s\"", seq);
    }
    if (args->n == 3) {
        if (strlen(args->v[0]) > CQ_NAME_MAX || strlen(args->v[1]) > CQ_NAME_MAX) {
            return ctl_fail(ctl, CTL_USAGE, "USAGE", "a name has at most %d characters",
                            CQ_NAME_MAX);
        }
        in->user_name = (struct cq_view){(const uint8_t *)args->v[0], strlen(args->v[0])};
        in->peer_name = (struct cq_view){(const uint8_t *)args->v[1], strlen(args->v[1])};
    }
    return CTL_OK;
}

int
ctl_ledger(struct ctl *ctl, struct ctl_args *args)
{
    static const char *const titles[STEP_COLUMNS] = {"STEP", "WHEN", "AFTER", "WHERE"};
    struct cq_bus_ledger in = {0};
    struct printing p = {.ctl = ctl};
    int rc = ctl_words(ctl, args, 2, 3);
    rc = rc ? rc : take_words(ctl, args, &in);
    rc = rc ? rc : ctl_open(ctl);
    if (rc) {
        return rc;
    }
    struct ctl_question q = {.dst = "store",
                             .op = CQ_BUS_STORE_LEDGER,
                             .schema = &cq_bus_ledger_schema,
                             .in = &in,
                             .fn = on_life,
                             .ctx = &p};
    p.table = ctl->json ? NULL : out_table_new(STEP_COLUMNS, titles);
    int err = ctl_ask(ctl, &q);
    if (p.table && !err) {
        out_table_print(&p.table, 0);
    } else if (p.table) {
        out_table_destroy(&p.table);
    }
    if (err == -CQ_E_NOT_FOUND) {
        return args->n == 2
                   ? ctl_fail(ctl, CTL_FAILED, "NOT_FOUND",
                              "no chat %s, or no message %" PRIu64 " in it", args->v[0], in.seq)
                   : ctl_fail(ctl, CTL_FAILED, "NOT_FOUND",
                              "no message %" PRIu64 " between %s and %s: is there such a user, and "
                              "such a number (chasqui history)?",
                              in.seq, args->v[0], args->v[1]);
    }
    if (err) {
        return ctl_refused(ctl, "store", err);
    }
    if (!p.is_read) {
        return ctl_fail(ctl, CTL_FAILED, "BAD_ARG", "the store's answer cannot be read");
    }
    if (p.life.more) {
        return ctl_fail(ctl, CTL_OK, "TOO_BIG", "there are more devices than one answer holds");
    }
    return CTL_OK;
}
