/* SPDX-License-Identifier: MPL-2.0
 * Writes the valid seeds of fuzz_media: one of each form.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/wire/pack.h"

#include "client/cipher.h"
#include "client/medium.h"
#include "client/probe_form.h"

static const uint8_t jpeg[] = {0xff, 0xd8, 0xff, 0xe0, 0, 4,   'x', 'x', 0xff, 0xc0, 0,
                               11,   8,    0,    120,  0, 160, 1,   1,   0x11, 0,    0xff,
                               0xda, 0,    8,    1,    1, 0,   0,   63,  0};
/* A frame behind a marker that some take for a bare one, and another where its length would end. */
static const uint8_t two_frames[] = {0xff, 0xd8, 0xff, 0x01, 0, 15, 0xff, 0xc0, 0,    11,   8,
                                     78,   32,   78,   32,   1, 1,  0x11, 0,    0xff, 0xc0, 0,
                                     11,   8,    0,    64,   0, 64, 1,    1,    0x11, 0,    0xff,
                                     0xda, 0,    8,    1,    1, 0,  0,    63,   0};

static void
save(const char *folder, const char *name, cq_buf_t *b)
{
    char path[4096];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "we");
    if (!f || fwrite(b->data, 1, b->size, f) != b->size || fclose(f) != 0) {
        (void)fprintf(stderr, "seed_media: cannot write %s\n", path);
        exit(EXIT_FAILURE); /* NOLINT(concurrency-mt-unsafe) one thread */
    }
    cq_buf_clear(b);
}

static void
begin(cq_buf_t *b, uint8_t which)
{
    cq_buf_append(b, &which, 1);
}

int
main(int argc, char **argv)
{
    cq_buf_t b = {0};
    static struct cq_medium m = {.blob = {{9}},
                                 .type = "image/jpeg",
                                 .name = "cat.jpg",
                                 .size = 2,
                                 .width = 640,
                                 .height = 480,
                                 .duration_ms = 5};
    if (argc != 2) {
        (void)fprintf(stderr, "usage: seed_media FOLDER\n");
        return EXIT_FAILURE;
    }
    m.length = cq_cipher_length(m.size);
    begin(&b, 0);
    cq_medium_write_plain(&b, (struct cq_view){(const uint8_t *)"look", 4}, &m);
    save(argv[1], "plain", &b);
    memcpy(m.thumbnail, jpeg, sizeof jpeg);
    m.thumbnail_size = sizeof jpeg;
    begin(&b, 1);
    cq_medium_write(&b, &m);
    save(argv[1], "kept", &b);
    begin(&b, 2);
    cq_pack_array(&b, CQ_PROBE_FIELDS);
    cq_pack_str(&b, m.type, strlen(m.type));
    cq_pack_uint(&b, 1200);
    cq_pack_uint(&b, 900);
    cq_pack_uint(&b, 0);
    cq_pack_bin(&b, jpeg, sizeof jpeg);
    save(argv[1], "probe", &b);
    begin(&b, 3);
    cq_buf_append(&b, jpeg, sizeof jpeg);
    save(argv[1], "jpeg", &b);
    begin(&b, 3);
    cq_buf_append(&b, two_frames, sizeof two_frames);
    save(argv[1], "two_frames", &b);
    begin(&b, 4);
    cq_buf_append(&b, jpeg, sizeof jpeg);
    save(argv[1], "blob", &b);
    cq_buf_free(&b);
    return EXIT_SUCCESS;
}
