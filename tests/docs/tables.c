/* SPDX-License-Identifier: MPL-2.0
 * Prints the tables and byte-exact examples of docs/protocol.md (argument `protocol`) or
 * docs/bus.md (`bus`).
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/wire/frame.h"
#include "common/wire/pack.h"

static void
print_type(const struct cq_field *f)
{
    static const char *const names[] = {
        [CQ_FIELD_UINT] = "uint", [CQ_FIELD_ID] = "id",   [CQ_FIELD_ID_OR_NIL] = "id or nil",
        [CQ_FIELD_BIN] = "bin",   [CQ_FIELD_STR] = "str", [CQ_FIELD_BOOL] = "bool",
        [CQ_FIELD_LIST] = "list", [CQ_FIELD_ANY] = "any",
    };
    printf("%s", names[f->type]);
    bool is_sized = f->type == CQ_FIELD_BIN || f->type == CQ_FIELD_STR;
    if (is_sized && f->min == f->max) {
        printf("(%" PRIu64 ")", f->max);
    } else if (is_sized) {
        printf("(%" PRIu64 "…%" PRIu64 ")", f->min, f->max);
    } else if (f->type == CQ_FIELD_LIST) {
        printf("(≤ %" PRIu64 ")", f->max);
    } else if (f->type == CQ_FIELD_UINT && f->max <= UINT32_MAX) {
        printf("(≤ %" PRIu64 ")", f->max);
    }
    if (f->is_later) {
        printf("%s", f->type == CQ_FIELD_BIN ? " or missing" : " or nil");
    }
}

static void
print_fields(const struct cq_schema *s)
{
    if (!s || s->field_count == 0) {
        printf("–");
        return;
    }
    for (size_t i = 0; i < s->field_count; i++) {
        printf("%s`%s` ", i ? ", " : "", s->fields[i].name);
        print_type(&s->fields[i]);
    }
}

static void
print_requests(void)
{
    static const char *const states[] = {
        [CQ_STATE_GUEST] = "before login", [CQ_STATE_USER] = "after", [CQ_STATE_BOTH] = "any time"};
    size_t count = 0;
    const struct cq_op *ops = cq_op_all(&count);
    printf("### Requests\n\n`[code, rid, fields…]`\n\n| code | name | when | what it does | fields "
           "| answer's fields |\n|---|---|---|---|---|---|\n");
    for (size_t i = 0; i < count; i++) {
        if (!ops[i].is_push) {
            printf("| 0x%02x | %s | %s | %s | ", ops[i].code, ops[i].name, states[ops[i].state],
                   ops[i].doc);
            print_fields(ops[i].fields);
            printf(" | ");
            print_fields(ops[i].answer);
            printf(" |\n");
        }
    }
}

static void
print_pushes(void)
{
    size_t count = 0;
    const struct cq_op *ops = cq_op_all(&count);
    printf("\n### Answers and pushes\n\n`[code, fields…]`; OK and ERR have the rid first. An "
           "ephemeral push may be dropped.\n\n"
           "| code | name | what it says | fields | policy |\n|---|---|---|---|---|\n");
    for (size_t i = 0; i < count; i++) {
        if (ops[i].is_push) {
            printf("| 0x%02x | %s | %s | ", ops[i].code, ops[i].name, ops[i].doc);
            print_fields(ops[i].fields);
            printf(" | %s |\n", ops[i].policy == CQ_POLICY_EPHEMERAL ? "ephemeral" : "durable");
        }
    }
}

static void
print_entries(void)
{
    static const struct {
        const struct cq_schema *schema;
        const char *where;
    } entries[] = {
        {&cq_device_row_schema, "DEVICES answer"},
        {&cq_friend_schema, "FRIENDS answer"},
        {&cq_key_have_schema, "KEYS"},
        {&cq_key_row_schema, "KEYS answer"},
        {&cq_sync_chat_schema, "SYNC answer"},
        {&cq_cursor_schema, "`cursors` of a sync_chat"},
        {&cq_chat_row_schema, "CHATS answer; `last` is a message or nil"},
        {&cq_message_schema, "HISTORY answer"},
        {&cq_media_schema, "`media` of SEND and of a message"},
        {&cq_ack_cursor_schema, "ACK"},
        {&cq_life_member_schema, "`members` of a LEDGER answer"},
        {&cq_life_device_schema, "`devices` of a LEDGER answer"},
        {&cq_presence_state_schema, "PRESENCE answer, PRESENCE_NOTE"},
    };
    printf("\n### Entries of lists\n\nEach entry is an array. The lists of PRESENCE (users) and "
           "GOAWAY (edges) have plain ids and strings.\n\n"
           "| entry | in | fields |\n|---|---|---|\n");
    for (size_t i = 0; i < sizeof entries / sizeof entries[0]; i++) {
        printf("| %s | %s | ", entries[i].schema->name, entries[i].where);
        print_fields(entries[i].schema);
        printf(" |\n");
    }
}

static void
print_errors(void)
{
    printf("\n### Errors\n\n| err | name | text |\n|---|---|---|\n");
#define CQ_ERR(name, number, text) printf("| %d | %s | %s |\n", number, #name, text);
#include "common/wire/err.def"
#undef CQ_ERR
}

static void
print_hex(const char *title, const cq_buf_t *b)
{
    printf("\n%s\n```\n", title);
    for (size_t i = 0; i < b->size; i++) {
        printf("%02x%s", b->data[i], i + 1 == b->size || i % 32 == 31 ? "\n" : " ");
    }
    printf("```\n");
}

static struct cq_id
id_of(uint8_t first)
{
    struct cq_id id = {{0}};
    for (uint8_t i = 0; i < CQ_ID_SIZE; i++) {
        id.b[i] = (uint8_t)(first + i);
    }
    return id;
}

static void
print_example(const char *title, cq_buf_t *op)
{
    cq_buf_t frame = {0};
    cq_pack_array(&frame, 1);
    cq_buf_append(&frame, op->data, op->size);
    print_hex(title, &frame);
    cq_buf_free(&frame);
    cq_buf_clear(op);
}

static void
print_examples(void)
{
    static const uint8_t nonce[CQ_NONCE_SIZE] = {1, 2, 3};
    static const uint8_t ciphertext[CQ_MAC_SIZE + 1] = {0xc1, 0xc2};
    struct cq_view n = {nonce, sizeof nonce};
    struct cq_view c = {ciphertext, sizeof ciphertext};
    struct cq_send send = {
        .chat = id_of(0x10), .dseq = 2, .prev = 1, .key_version = 1, .nonce = n, .ciphertext = c};
    struct cq_sent sent = {300, 1795497454817};
    struct cq_message message = {id_of(0x10),   300, id_of(0x20), id_of(0x30), 2,
                                 1795497454817, 1,   n,           c,           {NULL, 0}};
    struct cq_media media = {id_of(0x40), 4096, {(const uint8_t *)"\xd1\xd2", 2}};
    cq_buf_t media_bytes = {0};
    struct cq_receipt receipt = {id_of(0x10), id_of(0x20), {{0}}, 300, 1795497454900, 4711};
    cq_buf_t op = {0};
    printf("\n## 10. Examples, byte by byte\n\nWhole WebSocket messages (arrays of one operation), "
           "as hex. Ids count up from 0x10 (chat), "
           "0x20 (user), 0x30 (device).\n");
    cq_frame_request(&op, CQ_OP_PING, 7, &cq_empty_schema, "");
    print_example("PING with rid 7:", &op);
    cq_frame_ok(&op, 7, &cq_empty_schema, "");
    print_example("its answer:", &op);
    cq_frame_request(&op, CQ_OP_SEND, 8, &cq_send_schema, &send);
    print_example("SEND, rid 8, dseq 2 behind 1, key version 1, a ciphertext of 17 bytes:", &op);
    cq_schema_write_array(&cq_media_schema, &media_bytes, &media);
    send.media = (struct cq_view){media_bytes.data, media_bytes.size};
    cq_frame_request(&op, CQ_OP_SEND, 8, &cq_send_schema, &send);
    print_example("the same with a blob (id from 0x40) of 4,096 bytes and a thumbnail of 2 bytes:",
                  &op);
    cq_buf_free(&media_bytes);
    cq_frame_ok(&op, 8, &cq_sent_schema, &sent);
    print_example("its answer: seq 300:", &op);
    cq_frame_err(&op, 8, CQ_E_OUT_OF_ORDER, 0, 1);
    print_example("or OUT_OF_ORDER, the last accepted dseq is 1:", &op);
    cq_frame_push(&op, CQ_OP_MESSAGE, &cq_message_schema, &message);
    print_example("the push that the other user gets:", &op);
    cq_frame_push(&op, CQ_OP_RECEIPT, &cq_receipt_schema, &receipt);
    print_example("RECEIPT: the user has read up to 300:", &op);
    cq_buf_free(&op);
}

static void
print_protocol(void)
{
    printf("\n## 9. Operations, fields, errors\n\n`id` is 16 bytes of bin, `uint` up to 64 bits "
           "unless said, sizes in bytes, times in Unix milliseconds.\n\n");
    print_requests();
    print_pushes();
    print_entries();
    print_errors();
    print_examples();
}

static void
print_bus(void)
{
    size_t count = 0;
    const struct cq_bus_op *ops = cq_bus_op_all(&count);
    printf("\n## Operations\n\nFields behind the rid of an item. Events have no answer.\n\n"
           "| code | name | from → to | what it does | fields | answer's fields "
           "|\n|---|---|---|---|---|---|\n");
    for (size_t i = 0; i < count; i++) {
        printf("| 0x%02x | %s | %s → %s | %s | ", ops[i].code, ops[i].name, ops[i].from, ops[i].to,
               ops[i].doc);
        print_fields(ops[i].fields);
        printf(" | ");
        if (ops[i].answer) {
            print_fields(ops[i].answer);
        } else {
            printf("event");
        }
        printf(" |\n");
    }
    struct cq_envelope e = {CQ_BUS_CALL, 5, 10000, 0, 0};
    cq_buf_t b = {0};
    cq_envelope_write(&b, &e);
    print_hex("A header, byte by byte: version 1, op CALL, corr 5, deadline 10,000 ms, flags 0:",
              &b);
    cq_buf_free(&b);
}

int
main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "protocol") == 0) {
        print_protocol();
    } else if (argc == 2 && strcmp(argv[1], "bus") == 0) {
        print_bus();
    } else {
        fprintf(stderr, "usage: doc-tables protocol|bus\n");
        return 2;
    }
    return 0;
}
