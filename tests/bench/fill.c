/* SPDX-License-Identifier: MPL-2.0
 * chasqui-bench-fill: writes a store with many messages, as the service would have left it:
 * devices, friendships, messages, receipts, for benchmarks that ask it through the bus. Nobody can
 * log in and no chat's key unwraps: chasqui-bench-seed makes people who can. The folder is
 * DIR/store.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "common/rt/config.h"
#include "common/rt/log.h"
#include "common/rt/random.h"

#include "tests/bench/inproc.h"
#include "tests/bench/people.h"

enum {
    BATCH = 4096,
    USERS_PER_BATCH = 1000,
    PATH_ROOM = 4200,
    CHAT_CACHE = 2000000,
    FOLDER_MODE = 0700,
    STEPS_PER_WORD = 10, /* of progress */
};

struct options {
    char *data;
    struct bench_people people;
    uint64_t messages, bytes, receipts_every, behind, checkpoint_records;
};

#define OPTION(key, type, field) key, CQ_CONFIG_##type, offsetof(struct options, field)

static const struct cq_config_item items[] = {
    {OPTION("data", STR, data), NULL, 1, 4000, "", "folder; what is missing of it is made"},
    {OPTION("users", UINT, people.users), "1000", 3, 100000000, "", "people"},
    {OPTION("friends", UINT, people.friends), "200", 2, 100000, "", "friends of each, even"},
    {OPTION("messages", UINT, messages), "1000000", 0, 1000000000, "",
     "messages, spread evenly over the users * friends / 2 chats"},
    {OPTION("bytes", UINT, bytes), "200", 1, CQ_TEXT_MAX, "bytes", "length of a text"},
    {OPTION("receipts-every", UINT, receipts_every), "10", 0, 1000000, "",
     "so many messages bring one read receipt (0: none)"},
    {OPTION("behind", UINT, behind), "0", 0, 100000000, "",
     "stop as a crash would, with the rows so many records behind the log (0: complete)"},
    {OPTION("checkpoint-records", UINT, checkpoint_records), "350000", 1, 10000000, "", ""},
};

enum {
    ITEM_COUNT = sizeof items / sizeof items[0]
};

static struct options options;
static struct store_core *core;

static void
put(enum store_table t, struct store_key key, struct cq_view value)
{
    store_batch_put(core->building, t, store_key_view(&key), value, false);
}

static void
make_folder(const char *name, char path[PATH_ROOM])
{
    (void)snprintf(path, PATH_ROOM, "%s%s%s", options.data, name[0] ? "/" : "", name);
    (void)mkdir(path, FOLDER_MODE); /* what uses it says so if it is not there */
}

/* ---- people ---- */

static size_t
name_of(uint64_t user, char name[CQ_NAME_MAX + 1])
{
    return (size_t)snprintf(name, CQ_NAME_MAX + 1, "user%" PRIu64, user);
}

static void
add_user(uint64_t number)
{
    struct store_device row = {
        .label = "benchmark", .created_unix_ms = cq_now_unix_ms(), .generation = 1};
    struct cq_id user = bench_people_user(number);
    cq_buf_t b = {0};
    store_device_write(&b, &row);
    for (uint64_t i = 0; i < BENCH_PEOPLE_DEVICES; i++) {
        struct cq_id device = bench_people_device(number, i);
        put(STORE_TABLE_DEVICE, store_key_pair(&user, &device), (struct cq_view){b.data, b.size});
        put(STORE_TABLE_OWNER, store_key_of(&device), (struct cq_view){user.b, CQ_ID_SIZE});
    }
    cq_buf_free(&b);
}

static void
put_friend(const struct cq_id *user,
           const struct cq_id *peer,
           uint64_t peer_number,
           struct store_friend row)
{
    cq_buf_t b = {0};
    (void)name_of(peer_number, row.peer_name);
    store_friend_write(&b, &row);
    put(STORE_TABLE_USER, store_key_pair(user, peer), (struct cq_view){b.data, b.size});
    cq_buf_free(&b);
}

static void
add_chat(const struct bench_pair *pair)
{
    static const uint8_t wrapped[STORE_WRAPPED_SIZE];
    char name[CQ_NAME_MAX + 1];
    char peer_name[CQ_NAME_MAX + 1];
    struct cq_id user = bench_people_user(pair->user);
    struct cq_id peer = bench_people_user(pair->peer);
    struct cq_rec_friend f = {.user = user,
                              .peer = peer,
                              .action = CQ_OP_ACCEPT,
                              .user_relation = CQ_RELATION_FRIENDS,
                              .peer_relation = CQ_RELATION_FRIENDS,
                              .chat = pair->chat,
                              .key_version = 1,
                              .wrapped = {wrapped, STORE_WRAPPED_SIZE},
                              .time_unix_ms = cq_now_unix_ms(),
                              .device = bench_people_device(pair->user, 0)};
    f.user_name = (struct cq_view){(const uint8_t *)name, name_of(pair->user, name)};
    f.peer_name = (struct cq_view){(const uint8_t *)peer_name, name_of(pair->peer, peer_name)};
    struct store_chat *c = NULL;
    struct store_friend row = {
        .relation = CQ_RELATION_FRIENDS, .chat = pair->chat, .key_version = 1};
    bench_inproc_check(store_projection_begin(core->projection, &f.chat, &c), "a new chat");
    bench_inproc_check(store_core_append(core, c, CQ_REC_FRIEND, &f, &row.last_pos),
                       "a friendship");
    memcpy(row.wrapped, wrapped, STORE_WRAPPED_SIZE);
    put_friend(&user, &peer, pair->peer, row);
    put_friend(&peer, &user, pair->user, row);
}

static void
add_people(void)
{
    for (uint64_t i = 0; i < options.people.users; i++) {
        add_user(i);
        if (i % USERS_PER_BATCH == 0) {
            bench_inproc_commit();
        }
    }
    for (uint64_t i = 0; i < bench_people_chat_count(&options.people); i++) {
        struct bench_pair pair = bench_people_pair(&options.people, i);
        add_chat(&pair);
        if (core->building->record_count >= BATCH) {
            bench_inproc_commit();
        }
    }
    bench_inproc_commit();
}

/* ---- messages ---- */

static void
read_all(const struct bench_pair *pair, uint64_t reader)
{
    struct store_chat *c = NULL;
    int member = 0;
    uint64_t pos = 0;
    struct cq_rec_read r = {.chat = pair->chat,
                            .user = bench_people_user(reader),
                            .device = bench_people_device(reader, 0),
                            .time_unix_ms = cq_now_unix_ms()};
    bench_inproc_check(store_core_chat(core, &r.chat, &r.user, &c, &member), "a chat");
    r.up_to = c->head;
    bench_inproc_check(store_core_append(core, c, CQ_REC_READ, &r, &pos), "a receipt");
}

static void
add_messages(void)
{
    uint64_t chats = bench_people_chat_count(&options.people);
    for (uint64_t i = 1; i <= options.messages; i++) {
        struct bench_pair pair = bench_people_pair(&options.people, bench_people_random(chats));
        bool turned = bench_people_random(2);
        uint64_t from = turned ? pair.peer : pair.user;
        const struct bench_message m = {pair.chat, bench_people_user(from),
                                        bench_people_device(from, 0), options.bytes};
        bench_inproc_message(&m);
        if (options.receipts_every && i % options.receipts_every == 0) {
            read_all(&pair, turned ? pair.user : pair.peer);
        }
        if (core->building->record_count >= BATCH || i == options.messages) {
            bench_inproc_commit();
        }
        if (i % (options.messages / STEPS_PER_WORD + 1) == 0) {
            (void)fprintf(stderr, "fill: %" PRIu64 " messages\n", i);
        }
    }
    if (options.behind == 0) {
        bench_inproc_settle();
    }
}

int
main(int argc, char **argv)
{
    char database[PATH_ROOM];
    cq_secure_start();
    int rc = cq_config_load(items, ITEM_COUNT, "chasqui-bench-fill", argc, argv, &options);
    if (rc) {
        return rc > 0 ? 0 : 2;
    }
    cq_log_init("fill", CQ_LOG_WARN);
    bench_people_check(&options.people);
    make_folder("", database);
    make_folder("store", database);
    const struct bench_inproc_cfg cfg = {
        database, CHAT_CACHE, options.behind ? options.behind : options.checkpoint_records};
    core = bench_inproc_open(&cfg);
    if (core->last_pos) {
        bench_measure_fail("%s is not empty", database);
    }
    add_people();
    add_messages();
    (void)fprintf(stderr, "fill: %" PRIu64 " records\n", core->last_pos);
    bench_inproc_close();
    cq_config_free(items, ITEM_COUNT, &options);
    return 0;
}
