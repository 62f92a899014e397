/* SPDX-License-Identifier: MPL-2.0 */
#include "client/reconnect.h"

#include <stdio.h>
#include <string.h>

static const struct scheme {
    const char *prefix;
    uint16_t port;
    bool is_tls;
} schemes[] = {{"ws://", 80, false}, {"wss://", 443, true}};

static const char default_path[] = "/ws";

static int
parse_port(const char *s, size_t n, uint16_t *port)
{
    unsigned value = 0;
    if (!n || n > 5) {
        return -CQ_E_BAD_ARG;
    }
    for (size_t i = 0; i < n; i++) {
        if (s[i] < '0' || s[i] > '9') {
            return -CQ_E_BAD_ARG;
        }
        value = value * 10 + (unsigned)(s[i] - '0');
    }
    if (!value || value > UINT16_MAX) {
        return -CQ_E_BAD_ARG;
    }
    *port = (uint16_t)value;
    return 0;
}

/* HOST, HOST:PORT, [IPv6], [IPv6]:PORT */
static int
parse_authority(const char *s, size_t n, struct cq_url *out)
{
    const char *host = s;
    size_t host_size = n;
    const char *port = NULL;
    if (n && s[0] == '[') {
        const char *end = memchr(s, ']', n);
        if (!end) {
            return -CQ_E_BAD_ARG;
        }
        host = s + 1;
        host_size = (size_t)(end - host);
        port = end + 1;
    } else {
        const char *colon = memchr(s, ':', n);
        host_size = colon ? (size_t)(colon - s) : n;
        port = s + host_size;
    }
    if (!host_size) {
        return -CQ_E_BAD_ARG;
    }
    memcpy(out->host, host, host_size);
    out->host[host_size] = '\0';
    size_t left = (size_t)(s + n - port);
    if (!left) {
        return 0;
    }
    return *port == ':' ? parse_port(port + 1, left - 1, &out->port) : -CQ_E_BAD_ARG;
}

int
cq_url_parse(const char *s, size_t n, struct cq_url *out)
{
    memset(out, 0, sizeof *out);
    if (n > CQ_URL_MAX) {
        return -CQ_E_BAD_ARG;
    }
    for (size_t i = 0; i < n; i++) {
        if (s[i] <= ' ' || s[i] > '~' || s[i] == '@' || s[i] == '#') {
            return -CQ_E_BAD_ARG;
        }
    }
    memcpy(out->text, s, n);
    for (size_t i = 0; i < sizeof schemes / sizeof schemes[0]; i++) {
        size_t skip = strlen(schemes[i].prefix);
        if (n <= skip || memcmp(s, schemes[i].prefix, skip) != 0) {
            continue;
        }
        const char *rest = s + skip;
        size_t left = n - skip;
        const char *slash = memchr(rest, '/', left);
        size_t authority = slash ? (size_t)(slash - rest) : left;
        out->port = schemes[i].port;
        out->is_tls = schemes[i].is_tls;
        memcpy(out->path, slash ? slash : default_path,
               slash ? left - authority : sizeof default_path - 1);
        return parse_authority(rest, authority, out);
    }
    return -CQ_E_BAD_ARG;
}

int
cq_reconnect_init(struct cq_reconnect *r, const char *list, uint64_t random)
{
    memset(r, 0, sizeof *r);
    while (*list) {
        size_t n = strcspn(list, ",");
        if (r->count == CQ_URL_COUNT_MAX || cq_url_parse(list, n, &r->urls[r->count])) {
            return -CQ_E_BAD_ARG;
        }
        r->count++;
        list += n + (list[n] == ',');
    }
    if (!r->count) {
        return -CQ_E_BAD_ARG;
    }
    r->next = (size_t)(random % r->count);
    return 0;
}

struct cq_attempt
cq_reconnect_next(struct cq_reconnect *r, uint64_t random)
{
    bool is_lost = !r->failures && r->was_online;
    if (is_lost && r->count > 2 && !r->is_preferred) {
        /* next is behind the one that was lost, which is the last of the ring now */
        r->next = (r->next + random / (CQ_RECONNECT_SPREAD_MS + 1) % (r->count - 1)) % r->count;
    }
    r->is_preferred = false;
    struct cq_attempt a = {&r->urls[r->next], 0};
    unsigned rounds = r->failures / (unsigned)r->count;
    if (is_lost) {
        a.delay_ms = (uint32_t)(random % (CQ_RECONNECT_SPREAD_MS + 1));
    } else if (r->failures) {
        unsigned shift = rounds < 8 ? rounds : 8;
        uint32_t full = (uint32_t)CQ_RECONNECT_FIRST_MS << shift;
        full = full < CQ_RECONNECT_MAX_MS ? full : CQ_RECONNECT_MAX_MS;
        /* within the first round the other servers have not failed yet: only a little spread */
        full = rounds ? full : CQ_RECONNECT_FIRST_MS / 5;
        a.delay_ms = full / 2 + (uint32_t)(random % (full / 2 + 1));
    }
    r->next = (r->next + 1) % r->count;
    r->failures++;
    return a;
}

void
cq_reconnect_succeeded(struct cq_reconnect *r)
{
    r->failures = 0;
    r->was_online = true;
}

void
cq_reconnect_prefer(struct cq_reconnect *r, const char *edge, size_t n)
{
    for (size_t i = 0; i < r->count; i++) {
        if (strlen(r->urls[i].text) == n && !memcmp(r->urls[i].text, edge, n)) {
            r->next = i;
            r->is_preferred = true;
        }
    }
}

uint32_t
cq_reconnect_wait(uint32_t not_before_ms, uint32_t jitter_ms, uint64_t random)
{
    /* an edge cannot send us away for longer than this */
    enum {
        LONGEST_MS = 300000
    };
    uint64_t wait = not_before_ms + random % ((uint64_t)jitter_ms + 1);
    return (uint32_t)(wait < LONGEST_MS ? wait : LONGEST_MS);
}
