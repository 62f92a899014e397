/* SPDX-License-Identifier: MPL-2.0
 * What is wrong with Redis, in words an operator can act on.
 */
#ifndef PRESENCE_REDIS_TROUBLE_H
#define PRESENCE_REDIS_TROUBLE_H

/* What an error of Redis ("OOM command not allowed …") means and what to do about it. A constant.
 */
const char *presence_redis_trouble_of(const char *error);
/* The same of a connection that ended, or could not be made: why is one of redis_link.c's reasons,
 * error what Redis or the system said, or "". A constant. */
const char *presence_redis_trouble_down(const char *why, const char *error);
/* What the process says of its health from now on: a constant, NULL if all is well. */
void presence_redis_trouble_set(const char *what);

#endif
