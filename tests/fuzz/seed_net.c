/* SPDX-License-Identifier: MPL-2.0
 * Writes the seeds of fuzz_net: one good input of each kind.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

static const struct seed {
    const char *name;
    unsigned char kind;
    const char *bytes;
    size_t n;
} seeds[] = {
#define SEED(name, kind, text)            \
    {                                     \
        name, kind, text, sizeof text - 1 \
    }
    SEED("frames", 0, "\2\x82\x83\1\2\3\4abc\x89\x80\0\0\0\0\x01\x81\0\0\0\0x\x80\x81\0\0\0\0y"),
    SEED("frames-16", 0, "\7\x82\xfe\0\x7e\0\0\0\0"),
    SEED("frames-64", 0, "\7\x82\xff\0\0\0\0\0\1\0\0\0\0\0\0"),
    SEED("frames-text", 0, "\0\x81\x82\0\0\0\0\xc3\xa9\x88\x82\0\0\0\0\3\xe8"),
    SEED("head",
         1,
         "GET /ws?a HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: a, Upgrade\r\n\r\n"),
    SEED("proxy-1", 2, "PROXY TCP4 192.0.2.1 10.0.0.1 1000 80\r\n"),
    SEED("proxy-1-6", 2, "PROXY TCP6 2001:db8::1 ::1 1000 80\r\n"),
    SEED("proxy-2", 2, "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\1\2\3\4\5\6\7\10\1\1\0\x50"),
    SEED("utf8", 3, "a\xc3\xa9\xe2\x82\xac\xf0\x9d\x84\x9e and more than eight"),
    SEED("close", 4, "\3\xe8good bye"),
    SEED("path", 5, "/blob/0123456789abcdef0123456789abcdef"),
    SEED("bearer", 5, "Bearer lgHEEAABAgMEBQYHCAkKCwwNDg8"),
    SEED("metadata", 5, "filename cGljdHVyZS5qcGc=,is_private,type aW1hZ2UvanBlZw=="),
    SEED("checksum", 5, "sha1 Lve95gjOVATpfV8EL5X4nxwjKHE="),
    SEED("range", 5, "bytes=0-499"),
    SEED("range-open", 5, "bytes=9500-"),
    SEED("range-suffix", 5, "bytes=-500"),
    SEED("range-list", 5, "bytes=0-0, -1"),
    SEED("etags", 5, "\"a\", W/\"x\" , \"b\""),
    SEED("number", 5, "1000"),
};

int
main(int argc, char **argv)
{
    for (size_t i = 0; argc == 2 && i < sizeof seeds / sizeof seeds[0]; i++) {
        char path[4096];
        (void)snprintf(path, sizeof path, "%s/net-%s", argv[1], seeds[i].name);
        FILE *f = fopen(path, "we");
        size_t n = seeds[i].n;
        bool ok = f && fputc(seeds[i].kind, f) != EOF && fwrite(seeds[i].bytes, 1, n, f) == n;
        if (!f || fclose(f) != 0 || !ok) {
            (void)fprintf(stderr, "seed_net: cannot write %s\n", path);
            return EXIT_FAILURE;
        }
    }
    return argc == 2 ? EXIT_SUCCESS : EXIT_FAILURE;
}
