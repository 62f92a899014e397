/* SPDX-License-Identifier: MPL-2.0 */
#include "tests/bench/token.h"

#include <stdlib.h>
#include <string.h>

#include "common/rt/check.h"

#include "tests/bench/measure.h"

void
bench_token_keep(struct bench_token *t, struct cq_frame_op *welcome)
{
    struct cq_welcome w;
    if (cq_schema_read(&cq_welcome_schema, &welcome->fields, welcome->field_count, &w)) {
        bench_measure_fail("WELCOME cannot be read");
    }
    if (w.token.n == t->now.n && memcmp(w.token.p, t->now.p, w.token.n) == 0) {
        return;
    }
    bench_token_free(t);
    t->own = cq_alloc(w.token.n);
    memcpy(t->own, w.token.p, w.token.n);
    t->now = (struct cq_view){t->own, w.token.n};
}

void
bench_token_free(struct bench_token *t)
{
    free(t->own);
    *t = (struct bench_token){0};
}
