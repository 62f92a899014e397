/* SPDX-License-Identifier: MPL-2.0
 * chasqui-probe: reads a file from standard input (seekable) and says on standard output what it
 * is: see probe_form.h. main.c sets the limits of the process; image.c (libgd, libexif) makes a
 * picture's thumbnail, sound.c (libsndfile) knows how long a sound is.
 */
#ifndef CLIENT_PROBE_PROBE_H
#define CLIENT_PROBE_PROBE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/medium.h"
#include "client/picture.h"

struct probe {
    const uint8_t *data; /* all of it, mapped */
    size_t size;
    const char *type; /* NULL: neither picture nor sound */
    uint64_t width, height, duration_ms;
    uint8_t thumbnail[CQ_MEDIUM_JPEG_MAX];
    size_t thumbnail_size;
};

/* Fills width and height as shown, and the thumbnail if the picture can be decoded within the
 * limits. */
void probe_image(struct probe *p, const struct cq_picture *head);
/* Ogg with Opus, or WAV: type and duration. */
void probe_sound(struct probe *p, int fd);

#endif
