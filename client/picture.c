/* SPDX-License-Identifier: MPL-2.0 */
#include "client/picture.h"

#include <string.h>

struct bytes {
    const uint8_t *p;
    size_t n;
};

static uint32_t
big(const uint8_t *p, size_t n)
{
    uint32_t v = 0;
    for (size_t i = 0; i < n; i++) {
        v = v << 8 | p[i];
    }
    return v;
}

static uint32_t
little(const uint8_t *p, size_t n)
{
    uint32_t v = 0;
    for (size_t i = n; i-- > 0;) {
        v = v << 8 | p[i];
    }
    return v;
}

/* Start of frame, which has the size: C0 to CF but for DHT, JPG and DAC. */
static bool
is_frame(uint8_t marker)
{
    return marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc;
}

/* Those that have a length behind them. The others decoders disagree about, and none is needed
 * before the data: TEM and RSTn have nothing behind them, what is below C0 is garbage to be
 * skipped. */
static bool
is_segment(uint8_t marker)
{
    return marker >= 0xc0 && !(marker >= 0xd0 && marker <= 0xd9);
}

/* One frame, before the data (SOS). Strict: where a decoder could find another frame than we do, in
 * garbage or behind a marker that it takes for a bare one, its size would be anything. */
static bool
take_segment(struct bytes b, size_t at, size_t length, struct cq_picture *out)
{
    bool is_first = !out->width;
    if (!is_frame(b.p[at + 1])) {
        return true;
    }
    if (length >= 8) {
        out->height = big(b.p + at + 5, 2);
        out->width = big(b.p + at + 7, 2);
    }
    return is_first && out->width;
}

/* Segments: FF marker length(2) …, until the data. */
static bool
read_jpeg(struct bytes b, struct cq_picture *out)
{
    size_t at = 2;
    while (at + 4 <= b.n && b.p[at] == 0xff) {
        uint8_t marker = b.p[at + 1];
        if (marker == 0xff) { /* filling */
            at++;
            continue;
        }
        size_t length = big(b.p + at + 2, 2);
        if (!is_segment(marker) || length < 2 || length > b.n - at - 2 ||
            !take_segment(b, at, length, out)) {
            return false;
        }
        if (marker == 0xda) {
            return out->width > 0;
        }
        at += 2 + length;
    }
    return false;
}

static bool
read_png(struct bytes b, struct cq_picture *out)
{
    if (b.n < 24 || memcmp(b.p + 12, "IHDR", 4) != 0) {
        return false;
    }
    out->width = big(b.p + 16, 4);
    out->height = big(b.p + 20, 4);
    return true;
}

static bool
read_gif(struct bytes b, struct cq_picture *out)
{
    if (b.n < 10) {
        return false;
    }
    out->width = little(b.p + 6, 2);
    out->height = little(b.p + 8, 2);
    return true;
}

static bool
read_webp(struct bytes b, struct cq_picture *out)
{
    if (b.n < 30) {
        return false;
    }
    if (memcmp(b.p + 12, "VP8X", 4) == 0) {
        out->is_animated = b.p[20] & 2;
        out->width = little(b.p + 24, 3) + 1;
        out->height = little(b.p + 27, 3) + 1;
    } else if (memcmp(b.p + 12, "VP8L", 4) == 0) {
        uint32_t bits = little(b.p + 21, 4);
        out->width = (bits & 0x3fff) + 1;
        out->height = (bits >> 14 & 0x3fff) + 1;
    } else if (memcmp(b.p + 12, "VP8 ", 4) == 0) {
        out->width = little(b.p + 26, 2) & 0x3fff;
        out->height = little(b.p + 28, 2) & 0x3fff;
    } else {
        return false;
    }
    return true;
}

static const struct kind {
    const char *name;
    bool (*read)(struct bytes b, struct cq_picture *out);
    const char *magic;
    size_t magic_size;
    const char *second; /* at 8, or NULL */
} kinds[] = {
    [CQ_PICTURE_JPEG] = {"image/jpeg", read_jpeg, "\xff\xd8\xff", 3, NULL},
    [CQ_PICTURE_PNG] = {"image/png", read_png, "\x89PNG\r\n\x1a\n", 8, NULL},
    [CQ_PICTURE_GIF] = {"image/gif", read_gif, "GIF8", 4, NULL},
    [CQ_PICTURE_WEBP] = {"image/webp", read_webp, "RIFF", 4, "WEBP"},
};

int
cq_picture_read(const uint8_t *data, size_t n, struct cq_picture *out)
{
    *out = (struct cq_picture){0};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        const struct kind *k = &kinds[i];
        bool is_it = n >= 12 && memcmp(data, k->magic, k->magic_size) == 0 &&
                     (!k->second || memcmp(data + 8, k->second, 4) == 0);
        if (is_it) {
            out->type = (enum cq_picture_type)i;
            return k->read((struct bytes){data, n}, out) && out->width && out->height
                       ? 0
                       : -CQ_E_BAD_ARG;
        }
    }
    return -CQ_E_NOT_FOUND;
}

const char *
cq_picture_type_name(enum cq_picture_type type)
{
    return kinds[type].name;
}
