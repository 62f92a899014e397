/* SPDX-License-Identifier: MPL-2.0
 * Version 2 says its length, version 1 is a line: its end is looked for byte by byte.
 */
#include "edge/proxy.h"

#include <string.h>

enum {
    SIGNATURE_SIZE = 12, /* no header is shorter */
    V2_SIZE = 16,
    V1_MAX = 107,
    COMMAND_LOCAL = 0x20,
    COMMAND_PROXY = 0x21,
    FAMILY_TCP4 = 0x11,
    FAMILY_TCP6 = 0x21,
    TCP4_SIZE = 12,
    TCP6_SIZE = 36,
};

static const uint8_t signature[SIGNATURE_SIZE] = {0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d,
                                                  0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a};

static int
parse_v2(const uint8_t *p, size_t n, struct edge_proxy *out)
{
    if (n < V2_SIZE) {
        return (int)(V2_SIZE - n);
    }
    uint8_t command = p[12];
    uint8_t family = p[13];
    size_t size = (size_t)p[14] << 8 | p[15];
    if ((command != COMMAND_LOCAL && command != COMMAND_PROXY) || V2_SIZE + size > EDGE_PROXY_MAX) {
        return -1;
    }
    if (n < V2_SIZE + size) {
        return (int)(V2_SIZE + size - n);
    }
    *out = (struct edge_proxy){.is_local = true};
    if (command == COMMAND_LOCAL || !family) {
        return 0;
    }
    if (family == FAMILY_TCP4 && size >= TCP4_SIZE) {
        *out = (struct edge_proxy){.from = edge_ip_v4(p + V2_SIZE)};
        return 0;
    }
    if (family == FAMILY_TCP6 && size >= TCP6_SIZE) {
        out->is_local = false;
        memcpy(out->from.b, p + V2_SIZE, sizeof out->from.b);
        return 0;
    }
    return -1;
}

/* The word at *at, up to a space or the line's end: its length. */
static size_t
take_word(const char **at, const char *end, const char **word)
{
    *word = *at;
    while (*at < end && **at != ' ') {
        (*at)++;
    }
    size_t n = (size_t)(*at - *word);
    if (*at < end) {
        (*at)++;
    }
    return n;
}

static bool
is_port(const char *p, size_t n)
{
    unsigned port = 0;
    for (size_t i = 0; i < n; i++) {
        if (p[i] < '0' || p[i] > '9') {
            return false;
        }
        port = port * 10 + (unsigned)(p[i] - '0');
    }
    return n >= 1 && n <= 5 && port <= 65535;
}

static int
parse_v1_line(const char *at, const char *end, struct edge_proxy *out)
{
    const char *word;
    (void)take_word(&at, end, &word); /* PROXY */
    size_t n = take_word(&at, end, &word);
    if (n == 7 && memcmp(word, "UNKNOWN", n) == 0) {
        *out = (struct edge_proxy){.is_local = true};
        return 0;
    }
    bool is_tcp = n == 4 && (memcmp(word, "TCP4", n) == 0 || memcmp(word, "TCP6", n) == 0);
    struct edge_ip to;
    n = take_word(&at, end, &word);
    *out = (struct edge_proxy){0};
    if (!is_tcp || !edge_ip_parse(word, n, &out->from)) {
        return -1;
    }
    n = take_word(&at, end, &word);
    if (!edge_ip_parse(word, n, &to)) {
        return -1;
    }
    for (int i = 0; i < 2; i++) {
        n = take_word(&at, end, &word);
        if (!is_port(word, n)) {
            return -1;
        }
    }
    return at == end ? 0 : -1;
}

static int
parse_v1(const uint8_t *p, size_t n, struct edge_proxy *out)
{
    const uint8_t *newline = memchr(p, '\n', n);
    if (!newline) {
        return n < V1_MAX ? 1 : -1;
    }
    if (newline != p + n - 1 || newline[-1] != '\r') {
        return -1;
    }
    return parse_v1_line((const char *)p, (const char *)newline - 1, out);
}

int
edge_proxy_parse(const uint8_t *p, size_t n, struct edge_proxy *out)
{
    size_t seen = n < SIGNATURE_SIZE ? n : SIGNATURE_SIZE;
    bool is_v1 = memcmp(p, "PROXY ", seen < 6 ? seen : 6) == 0;
    bool is_v2 = memcmp(p, signature, seen) == 0;
    if (!is_v1 && !is_v2) {
        return -1;
    }
    if (n < SIGNATURE_SIZE) {
        return (int)(SIGNATURE_SIZE - n);
    }
    return is_v2 ? parse_v2(p, n, out) : parse_v1(p, n, out);
}
