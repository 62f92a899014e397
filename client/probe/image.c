/* SPDX-License-Identifier: MPL-2.0 */
#include <gd.h>
#include <libexif/exif-data.h>
#include <stdarg.h>
#include <string.h>

#include "client/probe.h"
#include "client/probe/probe.h"

enum {
    GOOD_SIZE = 5120, /* what a thumbnail should not exceed if that is possible with good looks */
    EXIF_MAX = 65536,
    LARGE_SIDE = 240,
    DRAFT_SIDE = 480, /* what the steps start from: the original is gone through once */
};

/* As large and fine as fits: the first that has at most `most` bytes. */
static const struct step {
    int side, quality;
    size_t most;
} steps[] = {
    {LARGE_SIDE, 70, GOOD_SIZE},  {LARGE_SIDE, 55, GOOD_SIZE},   {200, 50, GOOD_SIZE},
    {160, 45, GOOD_SIZE},         {160, 40, CQ_MEDIUM_JPEG_MAX}, {120, 35, CQ_MEDIUM_JPEG_MAX},
    {80, 30, CQ_MEDIUM_JPEG_MAX},
};

static void
on_gd_error(int priority, const char *format, va_list arguments)
{
    (void)priority;
    (void)format;
    (void)arguments; /* "no thumbnail" says it all */
}

/* Is all of it there, to the end marker? The others' decoders refuse what is cut off; libjpeg fills
 * up what is missing. (Data never has an end marker inside, pictures in segments before it do.) */
static bool
is_whole_jpeg(const uint8_t *p, size_t n)
{
    size_t at = 2;
    while (at + 4 <= n && p[at] == 0xff && p[at + 1] != 0xda) {
        at += p[at + 1] == 0xff ? 1 : 2 + ((size_t)p[at + 2] << 8 | p[at + 3]);
    }
    return at < n && memmem(p + at, n - at, "\xff\xd9", 2);
}

static gdImagePtr
decode_jpeg(int size, void *data)
{
    return is_whole_jpeg(data, (size_t)size) ? gdImageCreateFromJpegPtr(size, data) : NULL;
}

/* Behind the blocks of at most 255 bytes and their end, or 0: they are cut off. */
static size_t
skip_gif_blocks(const uint8_t *p, size_t n, size_t at)
{
    while (at < n && p[at]) {
        at += 1 + (size_t)p[at];
    }
    return at < n ? at + 1 : 0;
}

static size_t
gif_palette_size(uint8_t flags)
{
    return flags & 0x80 ? (size_t)3 << ((flags & 7) + 1) : 0;
}

/* To the trailer? libgd takes what there is. */
static bool
is_whole_gif(const uint8_t *p, size_t n)
{
    enum {
        HEAD = 13,
        FLAGS = 10,
        IMAGE_HEAD = 10,
        IMAGE_FLAGS = 9,
        EXTENSION = 0x21,
        IMAGE = 0x2c,
        TRAILER = 0x3b
    };
    size_t at = n > HEAD ? HEAD + gif_palette_size(p[FLAGS]) : n;
    while (at && at < n && p[at] != TRAILER) {
        if (p[at] == EXTENSION) {
            at = skip_gif_blocks(p, n, at + 2); /* its label */
        } else if (p[at] == IMAGE && n - at > IMAGE_HEAD) {
            size_t data = at + IMAGE_HEAD + gif_palette_size(p[at + IMAGE_FLAGS]);
            at = skip_gif_blocks(p, n, data + 1); /* the size of a code */
        } else {
            return false;
        }
    }
    return at && at < n;
}

static gdImagePtr
decode_gif(int size, void *data)
{
    return is_whole_gif(data, (size_t)size) ? gdImageCreateFromGifPtr(size, data) : NULL;
}

static gdImagePtr
decode(const struct probe *p, enum cq_picture_type type)
{
    static gdImagePtr (*const decoders[])(int size, void *data) = {
        [CQ_PICTURE_JPEG] = decode_jpeg,
        [CQ_PICTURE_PNG] = gdImageCreateFromPngPtr,
        [CQ_PICTURE_GIF] = decode_gif,
        [CQ_PICTURE_WEBP] = gdImageCreateFromWebpPtr,
    };
    union {
        const uint8_t *mapped;
        void *data; /* libgd does not write to it */
    } u = {p->data};
    gdSetErrorMethod(on_gd_error);
    return decoders[type]((int)p->size, u.data);
}

/* EXIF's orientation, 1 to 8; 1: as stored. */
static int
orientation_of(ExifData *exif)
{
    ExifEntry *e = exif_data_get_entry(exif, EXIF_TAG_ORIENTATION);
    if (!e || e->format != EXIF_FORMAT_SHORT || e->size < 2) {
        return 1;
    }
    int value = exif_get_short(e->data, exif_data_get_byte_order(exif));
    return value >= 1 && value <= 8 ? value : 1;
}

/* The chunk of this name, or n 0. PNG: length, name, data, checksum; WebP: name, length, data, to
 * an even offset. */
static struct cq_view
find_chunk(const struct probe *p, enum cq_picture_type type, const char *name)
{
    bool is_png = type == CQ_PICTURE_PNG;
    size_t at = is_png ? 8 : 12;
    while (p->size - at > 8) {
        const uint8_t *q = p->data + at;
        const uint8_t *l = is_png ? q : q + 4;
        size_t n = is_png ? (size_t)l[0] << 24 | (size_t)l[1] << 16 | (size_t)l[2] << 8 | l[3]
                          : (size_t)l[3] << 24 | (size_t)l[2] << 16 | (size_t)l[1] << 8 | l[0];
        if (n > p->size - at - 8) {
            break;
        }
        if (!memcmp(is_png ? q + 4 : q, name, 4)) {
            return (struct cq_view){q + 8, n};
        }
        at += 8 + n + (is_png ? 4 : n & 1);
        at = at < p->size ? at : p->size;
    }
    return (struct cq_view){0};
}

/* libexif finds it in a JPEG; by itself it must begin as it does there. */
static ExifData *
read_exif(const struct probe *p, enum cq_picture_type type)
{
    static const uint8_t begin[] = {'E', 'x', 'i', 'f', 0, 0};
    struct cq_view v = {p->data, p->size};
    if (type == CQ_PICTURE_JPEG) {
        return exif_data_new_from_data(v.p, (unsigned)v.n);
    }
    v = type == CQ_PICTURE_GIF ? (struct cq_view){0}
                               : find_chunk(p, type, type == CQ_PICTURE_PNG ? "eXIf" : "EXIF");
    if (!v.n || v.n > EXIF_MAX) {
        return NULL;
    }
    bool has_begin = v.n > sizeof begin && !memcmp(v.p, begin, sizeof begin);
    cq_buf_t b = {0};
    cq_buf_append(&b, begin, has_begin ? 0 : sizeof begin);
    cq_buf_append(&b, v.p, v.n);
    ExifData *exif = exif_data_new_from_data(b.data, (unsigned)b.size);
    cq_buf_free(&b);
    return exif;
}

static int
orientation(const struct probe *p, enum cq_picture_type type)
{
    int value = 1;
    ExifData *exif = read_exif(p, type);
    if (exif) {
        value = orientation_of(exif);
        exif_data_unref(exif);
    }
    return value;
}

/* Turned and mirrored as the orientation says; takes and gives an image. NULL: no memory. */
static gdImagePtr
turn(gdImagePtr im, int how)
{
    static const struct {
        float degrees; /* anticlockwise */
        bool mirror;
    } turns[] = {
        [2] = {0, true},    [3] = {180, false}, [4] = {180, true}, [5] = {270, true},
        [6] = {270, false}, [7] = {90, true},   [8] = {90, false},
    };
    if (how < 2) {
        return im;
    }
    if (turns[how].degrees != 0) {
        gdImagePtr turned = gdImageRotateInterpolated(im, turns[how].degrees, 0xffffff);
        gdImageDestroy(im);
        im = turned;
    }
    if (im && turns[how].mirror) {
        gdImageFlipHorizontal(im);
    }
    return im;
}

/* On white, fitted into a square. */
static gdImagePtr
shrink(gdImagePtr im, int side)
{
    int longer = gdImageSX(im) > gdImageSY(im) ? gdImageSX(im) : gdImageSY(im);
    int most = longer < side ? longer : side;
    int width = (int)((int64_t)gdImageSX(im) * most / longer);
    int height = (int)((int64_t)gdImageSY(im) * most / longer);
    width = width ? width : 1;
    height = height ? height : 1;
    gdImagePtr small = gdImageCreateTrueColor(width, height);
    if (small) {
        gdImageFilledRectangle(small, 0, 0, width, height, gdTrueColor(255, 255, 255));
        gdImageCopyResampled(small, im, 0, 0, 0, 0, width, height, gdImageSX(im), gdImageSY(im));
    }
    return small;
}

/* libgd writes its name into a comment: what is not needed to see the picture goes. Returns the new
 * size. */
static size_t
strip(uint8_t *p, size_t n)
{
    size_t at = 2;
    while (at + 4 <= n && p[at] == 0xff && p[at + 1] != 0xda) {
        size_t length = 2 + ((size_t)p[at + 2] << 8 | p[at + 3]);
        bool is_comment = p[at + 1] == 0xfe || (p[at + 1] >= 0xe1 && p[at + 1] <= 0xef);
        if (length < 4 || at + length > n) {
            break;
        }
        if (is_comment) {
            memmove(p + at, p + at + length, n - at - length);
            n -= length;
        } else {
            at += length;
        }
    }
    return n;
}

static bool
try_step(struct probe *p, gdImagePtr im, int how, const struct step *step)
{
    gdImagePtr small = shrink(im, step->side);
    small = small ? turn(small, how) : NULL;
    if (!small) {
        return false;
    }
    int size = 0;
    uint8_t *jpeg = gdImageJpegPtr(small, &size, step->quality);
    gdImageDestroy(small);
    size_t n = jpeg ? strip(jpeg, (size_t)size) : 0;
    bool fits = n && n <= step->most;
    if (fits) {
        memcpy(p->thumbnail, jpeg, n);
        p->thumbnail_size = n;
    }
    gdFree(jpeg);
    return fits;
}

void
probe_image(struct probe *p, const struct cq_picture *head)
{
    int how = orientation(p, head->type);
    bool is_sideways = how >= 5;
    p->type = cq_picture_type_name(head->type);
    p->width = is_sideways ? head->height : head->width;
    p->height = is_sideways ? head->width : head->height;
    if ((uint64_t)head->width * head->height > CQ_PROBE_PIXELS_MAX ||
        p->size > CQ_PROBE_PICTURE_MAX) {
        return;
    }
    gdImagePtr im = decode(p, head->type);
    gdImagePtr draft = im ? shrink(im, DRAFT_SIDE) : NULL;
    if (im) {
        gdImageDestroy(im);
    }
    for (size_t i = 0; draft && i < sizeof steps / sizeof steps[0]; i++) {
        if (try_step(p, draft, how, &steps[i])) {
            break;
        }
    }
    if (draft) {
        gdImageDestroy(draft);
    }
}
