/* SPDX-License-Identifier: MPL-2.0 */
#include "common/rt/random.h"

#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include <sodium.h>

#include "common/rt/check.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#    define CQ_UNDER_SANITIZER 1
#elif defined(__has_feature)
#    if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#        define CQ_UNDER_SANITIZER 1
#    endif
#endif
#ifndef CQ_UNDER_SANITIZER
#    define CQ_UNDER_SANITIZER 0
#endif

/* A process that may not dump core cannot be traced either, which the leak checker and debuggers
 * need. */
static void
forbid_core(void)
{
    const char *allow =
        getenv("CHASQUI_ALLOW_CORE"); /* NOLINT(concurrency-mt-unsafe) before threads */
    if (allow && strcmp(allow, "1") == 0) {
        return;
    }
    struct rlimit none = {0, 0};
    int rc = setrlimit(RLIMIT_CORE, &none);
    CQ_ASSERT(rc == 0);
    if (!CQ_UNDER_SANITIZER) {
        rc = prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
        CQ_ASSERT(rc == 0);
    }
}

void
cq_secure_start(void)
{
    int rc = sodium_init();
    CQ_ASSERT(rc >= 0);
    forbid_core();
}

void
cq_random(void *out, size_t n)
{
    randombytes_buf(out, n);
}

uint64_t
cq_random_u64(void)
{
    uint64_t v;
    randombytes_buf(&v, sizeof v);
    return v;
}

struct cq_id
cq_random_id(void)
{
    struct cq_id id;
    do {
        randombytes_buf(id.b, sizeof id.b);
    } while (cq_id_is_none(&id));
    return id;
}

uint64_t
cq_hash(const void *p, size_t n)
{
    static uint8_t key[crypto_shorthash_KEYBYTES];
    static bool has_key;
    uint64_t h;
    static_assert(sizeof h == crypto_shorthash_BYTES, "one number");
    if (!has_key) {
        randombytes_buf(key, sizeof key);
        has_key = true;
    }
    (void)crypto_shorthash((uint8_t *)&h, p, n, key);
    return h;
}

struct cq_id
cq_chat_id(const struct cq_id *a, const struct cq_id *b)
{
    static const char domain[] = "chasqui-chat";
    bool in_order = cq_id_cmp(a, b) <= 0;
    const struct cq_id *first = in_order ? a : b;
    const struct cq_id *second = in_order ? b : a;
    struct cq_id id;
    crypto_generichash_state state;
    (void)crypto_generichash_init(&state, NULL, 0, sizeof id.b);
    (void)crypto_generichash_update(&state, (const uint8_t *)domain, sizeof domain - 1);
    (void)crypto_generichash_update(&state, first->b, sizeof first->b);
    (void)crypto_generichash_update(&state, second->b, sizeof second->b);
    (void)crypto_generichash_final(&state, id.b, sizeof id.b);
    return id;
}
