/* SPDX-License-Identifier: MPL-2.0
 * User names and actor names.
 */
#ifndef CQ_WIRE_NAME_H
#define CQ_WIRE_NAME_H

#include <stdbool.h>
#include <stddef.h>

/* CQ_NAME_MIN to CQ_NAME_MAX characters of a-z 0-9 . _ - */
bool cq_name_ok(const char *s, size_t n);
/* 1 to CQ_ACTOR_NAME_MAX characters of a-z 0-9 . _ - */
bool cq_actor_name_ok(const char *s, size_t n);

#endif
