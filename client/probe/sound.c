/* SPDX-License-Identifier: MPL-2.0 */
#include <sndfile.h>
#include <string.h>

#include "client/probe/probe.h"

static const struct {
    const char *magic;
    size_t at;
    const char *second;
    const char *type;
} kinds[] = {
    {"OggS", 28, "OpusHead", "audio/ogg; codecs=opus"},
    {"OggS", 29, "vorbis", "audio/ogg; codecs=vorbis"},
    {"RIFF", 8, "WAVE", "audio/wav"},
};

void
probe_sound(struct probe *p, int fd)
{
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        size_t n = strlen(kinds[i].second);
        if (p->size >= kinds[i].at + n && !memcmp(p->data, kinds[i].magic, 4) &&
            !memcmp(p->data + kinds[i].at, kinds[i].second, n)) {
            p->type = kinds[i].type;
        }
    }
    if (!p->type) {
        return;
    }
    SF_INFO info = {0};
    SNDFILE *file = sf_open_fd(fd, SFM_READ, &info, SF_FALSE);
    if (file && info.samplerate > 0 && info.frames > 0 &&
        (uint64_t)info.frames < UINT64_MAX / 1000) {
        p->duration_ms = (uint64_t)info.frames * 1000 / (uint64_t)info.samplerate;
    }
    if (file) {
        (void)sf_close(file);
    }
}
