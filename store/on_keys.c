/* SPDX-License-Identifier: MPL-2.0
 * KEYS: the chat keys that a device lacks, sealed to it by the vault (docs/protocol.md §5).
 */
#include <stdlib.h>
#include <string.h>

#include "common/rt/check.h"

#include "store/core.h"

enum {
    KEYS_MAX = 2000
}; /* in one answer */

struct keys_request {
    struct store_core *core;
    struct cq_bus_from from;
    bool more;
};

struct lacking {
    struct cq_key_have *have; /* ascending by chat */
    size_t have_count;
    struct store_vault_key *keys;
    size_t count, room;
};

static int
compare_have(const void *left, const void *right)
{
    return cq_id_cmp(&((const struct cq_key_have *)left)->chat,
                     &((const struct cq_key_have *)right)->chat);
}

static bool
collect_key(void *ctx, const struct cq_id *peer, const struct store_friend *row)
{
    struct lacking *l = ctx;
    struct cq_key_have wanted = {row->chat, row->key_version};
    (void)peer;
    if (cq_id_is_none(&row->chat)) {
        return true;
    }
    const struct cq_key_have *have =
        l->have_count ? bsearch(&wanted, l->have, l->have_count, sizeof *l->have, compare_have)
                      : NULL;
    if (have && have->key_version == row->key_version) {
        return true;
    }
    if (l->count == l->room) {
        l->room = l->room ? 2 * l->room : 16;
        l->keys = realloc(l->keys, l->room * sizeof *l->keys);
        CQ_ASSERT(l->keys);
    }
    struct store_vault_key *key = &l->keys[l->count++];
    *key = (struct store_vault_key){.chat = row->chat, .key_version = row->key_version};
    memcpy(key->wrapped, row->wrapped, STORE_WRAPPED_SIZE);
    return l->count <= KEYS_MAX;
}

static int
read_have(const struct cq_list *list, struct lacking *l)
{
    cq_reader_t r = cq_list_reader(list);
    int rc = 0;
    l->have = cq_alloc((list->count + 1) * sizeof *l->have);
    for (size_t i = 0; i < list->count && !rc; i++) {
        rc = cq_schema_read_array(&cq_key_have_schema, &r, &l->have[i]);
    }
    l->have_count = list->count;
    qsort(l->have, l->have_count, sizeof *l->have, compare_have);
    return rc;
}

static void
on_bundle(void *ctx, struct store_vault_job *job)
{
    struct keys_request *request = ctx;
    struct store_core *core = request->core;
    if (job->rc) {
        cq_bus_reply_err(core->bus, &request->from, -CQ_E_INTERNAL, 0);
    } else {
        struct cq_key_bundle bundle = {
            .sealed = {job->sealed, sizeof job->sealed},
            .signature = {job->signature, sizeof job->signature},
            .more = request->more,
            .keys = cq_list_of(&job->out, job->out_count),
        };
        store_core_reply(core, &request->from, &cq_key_bundle_schema, &bundle);
    }
    free(request);
    store_vault_job_destroy(&job);
}

static int
ask_vault(struct store_core *core,
          struct store_call *call,
          const struct store_device *device,
          struct lacking *l)
{
    struct keys_request *request = cq_alloc(sizeof *request);
    struct store_vault_job *job = store_vault_job_new(STORE_VAULT_BUNDLE);
    *request = (struct keys_request){core, *call->from, l->count > KEYS_MAX};
    job->user = call->user;
    job->device = call->device;
    memcpy(job->device_key, device->key, sizeof job->device_key);
    job->keys = l->keys;
    job->key_count = l->count > KEYS_MAX ? KEYS_MAX : l->count;
    l->keys = NULL;
    job->done = on_bundle;
    job->ctx = request;
    int rc = store_vault_submit(core->vault, &job);
    if (rc) {
        store_vault_job_destroy(&job);
        free(request);
    }
    return rc;
}

int
store_on_keys(struct store_core *core, struct store_call *call, const void *in)
{
    const struct cq_keys *keys = in;
    struct lacking l = {0};
    struct store_device device;
    int rc = store_device_check(core, &call->user, &call->device);
    if (!rc) {
        rc = store_device_row(core, &call->user, &call->device, &device);
    }
    if (!rc) {
        rc = read_have(&keys->have, &l);
    }
    if (!rc) {
        rc = store_friend_each(core, &call->user, collect_key, &l);
    }
    if (!rc) {
        rc = ask_vault(core, call, &device, &l);
    }
    free(l.have);
    free(l.keys);
    return rc;
}
