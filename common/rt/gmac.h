/* SPDX-License-Identifier: MPL-2.0
 * AES-128-GMAC (NIST SP 800-38D): a tag of 16 bytes over data of any length, under a key, several
 * times as fast as a hash where the processor has AES and carry-less multiplication. Whoever does
 * not know the key cannot make data that fits a tag; for whoever does it is a check sum.
 */
#ifndef CQ_RT_GMAC_H
#define CQ_RT_GMAC_H

#include <stddef.h>
#include <stdint.h>

enum {
    CQ_GMAC_KEY_SIZE = 16,
    CQ_GMAC_TAG_SIZE = 16,
};

typedef struct cq_gmac cq_gmac_t;

/* Gives one. One thread at a time. */
cq_gmac_t *cq_gmac_new(const uint8_t key[CQ_GMAC_KEY_SIZE]);
void cq_gmac_destroy(cq_gmac_t **m);
/* Begins a tag; what was begun before is forgotten. number: the nonce (its last 8 bytes,
 * big-endian, the four before are 0). Then any number of adds, and one end. */
void cq_gmac_begin(cq_gmac_t *m, uint64_t number);
void cq_gmac_add(cq_gmac_t *m, const void *data, size_t n);
void cq_gmac_end(cq_gmac_t *m, uint8_t tag[CQ_GMAC_TAG_SIZE]);

#endif
