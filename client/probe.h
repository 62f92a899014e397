/* SPDX-License-Identifier: MPL-2.0
 * What a file is: asks the program chasqui-probe, a process of its own with little memory and time.
 * Decoders of pictures and sound see hostile files; what they break there is only that process.
 */
#ifndef CLIENT_PROBE_H
#define CLIENT_PROBE_H

#include "client/medium.h"

enum {
    CQ_PROBE_ANSWER_MAX = CQ_MEDIUM_JPEG_MAX + 256,
    CQ_PROBE_MS = 20000,
    CQ_PROBE_PIXELS_MAX = 60000000,      /* a picture with more gets no thumbnail */
    CQ_PROBE_PICTURE_MAX = 64 * 1048576, /* nor one of more bytes */
};

/* Fills type, width, height, duration_ms and thumbnail of a medium from an open file; name gives
 * the type of what is neither picture nor sound. 0 in any case where the file can be sent: *why
 * says (or is NULL) why a picture has no thumbnail. -CQ_E_IO: no process. The file's offset is 0
 * after. */
int cq_probe_file(int fd, struct cq_medium *m, const char **why) CQ_MUST_CHECK;

/* The program's answer, for tests and fuzzing: -CQ_E_BAD_FRAME. */
int cq_probe_read(struct cq_view answer, struct cq_medium *m) CQ_MUST_CHECK;

#endif
