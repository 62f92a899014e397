/* SPDX-License-Identifier: MPL-2.0
 * What a client takes of pictures and files: the plaintext of a message, the form in its database,
 * the answer of chasqui-probe, the head of a picture, a blob's chunks. The first byte says which.
 */
#include <stdlib.h>
#include <string.h>

#include "client/cipher.h"
#include "client/medium.h"
#include "client/picture.h"
#include "client/probe.h"
#include "tests/fuzz/fuzz_wire.h"

static void
must(bool holds)
{
    if (!holds) {
        abort();
    }
}

static void
check_medium(const struct cq_medium *m)
{
    must(strlen(m->name) >= 1 && strlen(m->name) <= CQ_MEDIUM_NAME_MAX);
    must(!strchr(m->name, '/') && m->name[0] != '.');
    must(m->thumbnail_size <= CQ_MEDIUM_JPEG_MAX);
}

/* Any length: the one that fits is the sender's claim. */
static void
try_plain(struct cq_view bytes)
{
    static struct cq_medium m;
    struct cq_view caption;
    for (uint64_t size = 0; size < 3; size++) {
        const struct cq_media media = {{{1}}, cq_cipher_length(size), bytes};
        cq_reader_t r = cq_reader_of(bytes);
        size_t count = cq_read_array(&r, 1, 16);
        (void)cq_read_uint(&r, UINT64_MAX);
        if (!r.err && !cq_medium_read_plain(&r, count - 1, &media, &caption, &m)) {
            must(caption.n <= CQ_MEDIUM_CAPTION_MAX);
            check_medium(&m);
        }
    }
}

static void
try_kept(struct cq_view bytes)
{
    static struct cq_medium m;
    static struct cq_medium again;
    cq_buf_t b = {0};
    if (cq_medium_read(bytes, &m) == 0) {
        check_medium(&m);
        cq_medium_write(&b, &m);
        must(cq_medium_read((struct cq_view){b.data, b.size}, &again) == 0);
        must(memcmp(&m, &again, sizeof m) == 0);
    }
    cq_buf_free(&b);
}

static void
try_probe(struct cq_view bytes)
{
    static struct cq_medium m;
    if (cq_probe_read(bytes, &m) == 0) {
        must(m.thumbnail_size <= CQ_MEDIUM_JPEG_MAX && strlen(m.type) <= CQ_MEDIUM_TYPE_MAX);
    }
}

static void
try_picture(struct cq_view bytes)
{
    struct cq_picture p;
    if (cq_picture_read(bytes.p, bytes.n, &p) == 0) {
        must(p.width && p.height && cq_picture_type_name(p.type));
    }
}

/* Nobody who lacks the key can make a chunk. */
static void
try_blob(struct cq_view bytes)
{
    static struct cq_cipher c;
    static const uint8_t key[CQ_KEY_SIZE] = {1};
    cq_cipher_begin(&c, key, bytes.n);
    (void)!cq_cipher_take(&c, bytes.p, bytes.n, NULL, NULL);
    must(!c.is_whole && c.done == 0);
}

static void (*const tries[])(struct cq_view) = {
    try_plain, try_kept, try_probe, try_picture, try_blob,
};

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n > 0 && data[0] < sizeof tries / sizeof tries[0]) {
        tries[data[0]]((struct cq_view){data + 1, n - 1});
    }
    return 0;
}
