/* SPDX-License-Identifier: MPL-2.0 */
#include "presence/redis_value.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/rt/check.h"
#include "common/wire/name.h"

size_t
presence_redis_value_key(char out[PRESENCE_REDIS_KEY_SIZE],
                         const char *prefix,
                         const struct cq_id *user)
{
    char hex[CQ_ID_HEX_SIZE];
    int n = snprintf(out, PRESENCE_REDIS_KEY_SIZE, "%s%s", prefix, cq_id_hex(user, hex));
    CQ_ASSERT(n > 0 && n < PRESENCE_REDIS_KEY_SIZE);
    return (size_t)n;
}

static int
hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool
read_hex_id(struct cq_view text, struct cq_id *id)
{
    if (text.n != CQ_ID_HEX_SIZE - 1) {
        return false;
    }
    for (size_t i = 0; i < CQ_ID_SIZE; i++) {
        int high = hex_digit(text.p[2 * i]);
        int low = hex_digit(text.p[2 * i + 1]);
        if (high < 0 || low < 0) {
            return false;
        }
        id->b[i] = (uint8_t)(high * 16 + low);
    }
    return true;
}

int
presence_redis_value_key_read(struct cq_view key, const char *prefix, struct cq_id *user)
{
    size_t n = strlen(prefix);
    if (key.n < n || memcmp(key.p, prefix, n) != 0) {
        return -CQ_E_BAD_ARG;
    }
    return read_hex_id((struct cq_view){key.p + n, key.n - n}, user) ? 0 : -CQ_E_BAD_ARG;
}

size_t
presence_redis_value_write(char out[PRESENCE_REDIS_VALUE_SIZE],
                           uint64_t heartbeat_unix_ms,
                           const struct presence_redis_session *sessions,
                           size_t count)
{
    size_t n = (size_t)snprintf(out, PRESENCE_REDIS_VALUE_SIZE, "%" PRIu64, heartbeat_unix_ms);
    for (size_t i = 0; i < count && i < PRESENCE_REDIS_LISTED_MAX; i++) {
        char hex[CQ_ID_HEX_SIZE];
        int more = snprintf(out + n, PRESENCE_REDIS_VALUE_SIZE - n, ";%s/%" PRIu64 "/%s/%" PRIu64,
                            sessions[i].edge, sessions[i].session,
                            cq_id_hex(&sessions[i].device, hex), sessions[i].since_unix_ms);
        CQ_ASSERT(more > 0 && (size_t)more < PRESENCE_REDIS_VALUE_SIZE - n);
        n += (size_t)more;
    }
    return n;
}

/* Takes what stands before the separator (or all) off the front. */
static struct cq_view
take_until(struct cq_view *rest, char separator)
{
    const uint8_t *at = rest->n ? memchr(rest->p, separator, rest->n) : NULL;
    struct cq_view part = {rest->p, at ? (size_t)(at - rest->p) : rest->n};
    size_t used = at ? part.n + 1 : part.n;
    rest->p += used;
    rest->n -= used;
    return part;
}

bool
presence_redis_value_number(struct cq_view text, uint64_t *number)
{
    if (text.n == 0 || text.n > 20) {
        return false;
    }
    uint64_t v = 0;
    for (size_t i = 0; i < text.n; i++) {
        unsigned digit = (unsigned)text.p[i] - '0';
        if (digit > 9 || v > (UINT64_MAX - digit) / 10) {
            return false;
        }
        v = v * 10 + digit;
    }
    *number = v;
    return true;
}

static bool
read_session(struct cq_view text, struct presence_redis_session *s)
{
    struct cq_view edge = take_until(&text, '/');
    struct cq_view session = take_until(&text, '/');
    struct cq_view device = take_until(&text, '/');
    if (!cq_actor_name_ok((const char *)edge.p, edge.n)) {
        return false;
    }
    memcpy(s->edge, edge.p, edge.n);
    s->edge[edge.n] = '\0';
    return presence_redis_value_number(session, &s->session) && read_hex_id(device, &s->device) &&
           presence_redis_value_number(text, &s->since_unix_ms);
}

int
presence_redis_value_read(struct cq_view value,
                          uint64_t *heartbeat_unix_ms,
                          struct presence_redis_session *sessions,
                          size_t max)
{
    if (!presence_redis_value_number(take_until(&value, ';'), heartbeat_unix_ms)) {
        return -CQ_E_CORRUPT;
    }
    size_t count = 0;
    while (value.n > 0 && count < max) {
        if (!read_session(take_until(&value, ';'), &sessions[count])) {
            return -CQ_E_CORRUPT;
        }
        count++;
    }
    return (int)count;
}
