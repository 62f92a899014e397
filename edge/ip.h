/* SPDX-License-Identifier: MPL-2.0
 * Addresses of clients: one form for both families, text for logs, keys for limits, lists of
 * networks, and how many connections each has.
 */
#ifndef EDGE_IP_H
#define EDGE_IP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sockaddr;

/* IPv6; IPv4 as ::ffff:a.b.c.d. */
struct edge_ip {
    uint8_t b[16];
};

enum {
    EDGE_IP_TEXT_MAX = 48
};

/* All zero if it is neither IPv4 nor IPv6. */
struct edge_ip edge_ip_of(const struct sockaddr *a);
struct edge_ip edge_ip_v4(const uint8_t b[4]);
/* "10.0.0.1" or "2001:db8::1" in out; returns out. */
const char *edge_ip_text(const struct edge_ip *ip, char out[EDGE_IP_TEXT_MAX]);
/* What limits count by: the whole IPv4 address, the upper half of an IPv6 one (a customer's
 * network). */
uint64_t edge_ip_key(const struct edge_ip *ip);
bool edge_ip_is_loopback(const struct edge_ip *ip);
/* Reads an address; false if it is none. */
bool edge_ip_parse(const char *text, size_t n, struct edge_ip *ip);

/* Networks: "10.0.0.0/8, ::1, 192.0.2.7". */
typedef struct edge_ip_list edge_ip_list_t;
/* Gives the list; NULL if an entry is no address or network: *bad, *bad_n show it. */
edge_ip_list_t *edge_ip_list_new(const char *text, const char **bad, size_t *bad_n);
void edge_ip_list_destroy(edge_ip_list_t **list);
bool edge_ip_list_has(const edge_ip_list_t *list, const struct edge_ip *ip);

/* Connections per key, as many keys as there are connections. */
typedef struct edge_ip_count edge_ip_count_t;
edge_ip_count_t *edge_ip_count_new(void);
void edge_ip_count_destroy(edge_ip_count_t **c);
/* Counts one more and returns how many there are; remove one for each. */
size_t edge_ip_count_add(edge_ip_count_t *c, uint64_t key);
void edge_ip_count_remove(edge_ip_count_t *c, uint64_t key);
size_t edge_ip_count_keys(const edge_ip_count_t *c);

#endif
