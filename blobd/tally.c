/* SPDX-License-Identifier: MPL-2.0 */
#include "blobd/tally.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "common/rt/check.h"

struct blobd_tally {
    pthread_mutex_t changing;
    struct blobd_total folders[BLOBD_FOLDERS];
    _Atomic uint64_t count, bytes; /* of all folders */
};

blobd_tally_t *
blobd_tally_new(void)
{
    blobd_tally_t *t = cq_alloc(sizeof *t);
    (void)pthread_mutex_init(&t->changing, NULL);
    return t;
}

void
blobd_tally_destroy(blobd_tally_t **tally)
{
    if (*tally) {
        (void)pthread_mutex_destroy(&(*tally)->changing);
        free(*tally);
        *tally = NULL;
    }
}

void
blobd_tally_begin(blobd_tally_t *t)
{
    (void)pthread_mutex_lock(&t->changing);
}

void
blobd_tally_end(blobd_tally_t *t)
{
    (void)pthread_mutex_unlock(&t->changing);
}

void
blobd_tally_set(blobd_tally_t *t, unsigned folder, const struct blobd_total *counted)
{
    struct blobd_total *f = &t->folders[folder];
    t->count += counted->count - f->count;
    t->bytes += counted->bytes - f->bytes;
    *f = *counted;
}

/* What is less than nothing was there before the folder was counted. */
static uint64_t
sum_or_0(uint64_t a, int64_t b)
{
    return b < 0 && (uint64_t)-b > a ? 0 : a + (uint64_t)b;
}

void
blobd_tally_add(blobd_tally_t *t, unsigned folder, int count, int64_t bytes)
{
    const struct blobd_total *f = &t->folders[folder];
    const struct blobd_total now = {sum_or_0(f->count, count), sum_or_0(f->bytes, bytes)};
    blobd_tally_set(t, folder, &now);
}

struct blobd_total
blobd_tally_sum(const blobd_tally_t *t)
{
    return (struct blobd_total){t->count, t->bytes};
}
