/* SPDX-License-Identifier: MPL-2.0
 * Which tokens are void: (user, device) → the highest revoked generation. Loaded from the store,
 * only ever grows.
 */
#ifndef EDGE_REVOKED_H
#define EDGE_REVOKED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/wire/id.h"

typedef struct edge_revoked edge_revoked_t;

edge_revoked_t *edge_revoked_new(void);
void edge_revoked_destroy(edge_revoked_t **r);
void edge_revoked_add(edge_revoked_t *r,
                      const struct cq_id *user,
                      const struct cq_id *device,
                      uint64_t generation);
bool edge_revoked_has(const edge_revoked_t *r,
                      const struct cq_id *user,
                      const struct cq_id *device,
                      uint64_t generation);
size_t edge_revoked_count(const edge_revoked_t *r);

#endif
