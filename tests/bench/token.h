/* SPDX-License-Identifier: MPL-2.0
 * The token of a client: that of the seed's file until WELCOME brings another, which it keeps, as
 * the client library does.
 */
#ifndef BENCH_TOKEN_H
#define BENCH_TOKEN_H

#include "common/wire/frame.h"

struct bench_token {
    struct cq_view now; /* to send with RESUME */
    uint8_t *own;       /* now.p if it is not the seed's */
};

/* Takes the token of RESUME's answer. Ends the program if that cannot be read. */
void bench_token_keep(struct bench_token *t, struct cq_frame_op *welcome);
void bench_token_free(struct bench_token *t);

#endif
