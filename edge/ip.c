/* SPDX-License-Identifier: MPL-2.0 */
#include "edge/ip.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "common/rt/check.h"

#include "edge/origin.h"

enum {
    V4_PREFIX = 96, /* bits before an IPv4 address */
    SLOTS_MIN = 64,
    NETWORKS_MAX = 256
};

static const uint8_t v4_prefix[12] = {[10] = 0xff, [11] = 0xff};

struct network {
    struct edge_ip ip;
    unsigned bits;
};

struct edge_ip_list {
    size_t count;
    struct network all[];
};

struct slot {
    uint64_t key;
    size_t count; /* 0: free */
};

struct edge_ip_count {
    struct slot *slots;
    size_t slot_count; /* power of two */
    size_t used;
};

static bool
is_v4(const struct edge_ip *ip)
{
    return memcmp(ip->b, v4_prefix, sizeof v4_prefix) == 0;
}

struct edge_ip
edge_ip_v4(const uint8_t b[4])
{
    struct edge_ip ip;
    memcpy(ip.b, v4_prefix, sizeof v4_prefix);
    memcpy(ip.b + sizeof v4_prefix, b, 4);
    return ip;
}

struct edge_ip
edge_ip_of(const struct sockaddr *a)
{
    struct edge_ip ip = {{0}};
    if (a->sa_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, a, sizeof in);
        uint8_t b[4];
        memcpy(b, &in.sin_addr, sizeof b);
        ip = edge_ip_v4(b);
    } else if (a->sa_family == AF_INET6) {
        struct sockaddr_in6 in6;
        memcpy(&in6, a, sizeof in6);
        memcpy(ip.b, &in6.sin6_addr, sizeof ip.b);
    }
    return ip;
}

const char *
edge_ip_text(const struct edge_ip *ip, char out[EDGE_IP_TEXT_MAX])
{
    const char *text = is_v4(ip)
                           ? inet_ntop(AF_INET, ip->b + sizeof v4_prefix, out, EDGE_IP_TEXT_MAX)
                           : inet_ntop(AF_INET6, ip->b, out, EDGE_IP_TEXT_MAX);
    return text ? text : "?";
}

uint64_t
edge_ip_key(const struct edge_ip *ip)
{
    uint64_t key;
    memcpy(&key, is_v4(ip) ? ip->b + 8 : ip->b, sizeof key);
    return key;
}

bool
edge_ip_is_loopback(const struct edge_ip *ip)
{
    static const uint8_t v6[16] = {[15] = 1};
    return is_v4(ip) ? ip->b[12] == 127 : memcmp(ip->b, v6, sizeof v6) == 0;
}

bool
edge_ip_parse(const char *text, size_t n, struct edge_ip *ip)
{
    char copy[EDGE_IP_TEXT_MAX];
    if (n >= sizeof copy) {
        return false;
    }
    memcpy(copy, text, n);
    copy[n] = '\0';
    uint8_t v4[4];
    if (inet_pton(AF_INET, copy, v4) == 1) {
        *ip = edge_ip_v4(v4);
        return true;
    }
    return inet_pton(AF_INET6, copy, ip->b) == 1;
}

/* ---- networks ---- */

static bool
parse_network(const char *text, size_t n, struct network *net)
{
    const char *slash = memchr(text, '/', n);
    size_t address_n = slash ? (size_t)(slash - text) : n;
    if (!edge_ip_parse(text, address_n, &net->ip)) {
        return false;
    }
    unsigned first = is_v4(&net->ip) && memchr(text, '.', address_n) ? V4_PREFIX : 0;
    net->bits = 128;
    if (!slash) {
        return true;
    }
    unsigned bits = 0;
    const char *end = text + n;
    const char *p = slash + 1;
    for (; p < end && *p >= '0' && *p <= '9' && bits <= 128; p++) {
        bits = bits * 10 + (unsigned)(*p - '0');
    }
    net->bits = first + bits;
    return p == end && p > slash + 1 && net->bits <= 128;
}

edge_ip_list_t *
edge_ip_list_new(const char *text, const char **bad, size_t *bad_n)
{
    edge_ip_list_t *list = cq_alloc(sizeof *list + NETWORKS_MAX * sizeof list->all[0]);
    const char *entry;
    size_t n;
    while (edge_origin_list_next(&text, &entry, &n)) {
        if (list->count == NETWORKS_MAX || !parse_network(entry, n, &list->all[list->count])) {
            *bad = entry;
            *bad_n = n;
            edge_ip_list_destroy(&list);
            return NULL;
        }
        list->count++;
    }
    return list;
}

void
edge_ip_list_destroy(edge_ip_list_t **list)
{
    free(*list);
    *list = NULL;
}

static bool
is_in(const struct network *net, const struct edge_ip *ip)
{
    unsigned whole = net->bits / 8;
    unsigned rest = net->bits % 8;
    if (memcmp(net->ip.b, ip->b, whole) != 0) {
        return false;
    }
    return !rest || (net->ip.b[whole] ^ ip->b[whole]) >> (8 - rest) == 0;
}

bool
edge_ip_list_has(const edge_ip_list_t *list, const struct edge_ip *ip)
{
    for (size_t i = 0; i < list->count; i++) {
        if (is_in(&list->all[i], ip)) {
            return true;
        }
    }
    return false;
}

/* ---- connections per key: open addressing, removal moves the rest of the run back ---- */

static size_t
home_of(const edge_ip_count_t *c, uint64_t key)
{
    uint64_t h = key * 0x9e3779b97f4a7c15u;
    return (size_t)(h ^ h >> 32) & (c->slot_count - 1);
}

static struct slot *
find(const edge_ip_count_t *c, uint64_t key)
{
    size_t i = home_of(c, key);
    while (c->slots[i].count && c->slots[i].key != key) {
        i = (i + 1) & (c->slot_count - 1);
    }
    return &c->slots[i];
}

edge_ip_count_t *
edge_ip_count_new(void)
{
    edge_ip_count_t *c = cq_alloc(sizeof *c);
    c->slot_count = SLOTS_MIN;
    c->slots = cq_alloc(c->slot_count * sizeof *c->slots);
    return c;
}

void
edge_ip_count_destroy(edge_ip_count_t **c)
{
    if (*c) {
        free((*c)->slots);
        free(*c);
        *c = NULL;
    }
}

static void
grow(edge_ip_count_t *c)
{
    struct slot *old = c->slots;
    size_t old_count = c->slot_count;
    c->slot_count *= 2;
    c->slots = cq_alloc(c->slot_count * sizeof *c->slots);
    for (size_t i = 0; i < old_count; i++) {
        if (old[i].count) {
            *find(c, old[i].key) = old[i];
        }
    }
    free(old);
}

size_t
edge_ip_count_add(edge_ip_count_t *c, uint64_t key)
{
    if (c->used * 2 >= c->slot_count) {
        grow(c);
    }
    struct slot *s = find(c, key);
    c->used += !s->count;
    s->key = key;
    return ++s->count;
}

void
edge_ip_count_remove(edge_ip_count_t *c, uint64_t key)
{
    struct slot *s = find(c, key);
    CQ_ASSERT(s->count);
    if (--s->count) {
        return;
    }
    c->used--;
    size_t mask = c->slot_count - 1;
    size_t hole = (size_t)(s - c->slots);
    for (size_t i = (hole + 1) & mask; c->slots[i].count; i = (i + 1) & mask) {
        size_t home = home_of(c, c->slots[i].key);
        if (((i - home) & mask) >= ((i - hole) & mask)) {
            c->slots[hole] = c->slots[i];
            c->slots[i].count = 0;
            hole = i;
        }
    }
}

size_t
edge_ip_count_keys(const edge_ip_count_t *c)
{
    return c->used;
}
