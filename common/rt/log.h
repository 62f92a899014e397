/* SPDX-License-Identifier: MPL-2.0
 * Structured log: one logfmt line per event on stderr:
 *   2026-11-24T04:54:39.123Z level=info part=edge.1 id=EDGE-LISTEN port=8080
 * The format gives key=value pairs; values with spaces, quotes, control or non-UTF-8 bytes are
 * quoted and escaped by cq_log_text(). Message bodies, passwords, tokens and keys are never logged.
 * Any thread.
 */
#ifndef CQ_RT_LOG_H
#define CQ_RT_LOG_H

#include <stdbool.h>
#include <stddef.h>

enum cq_log_level {
    CQ_LOG_DEBUG,
    CQ_LOG_INFO,
    CQ_LOG_WARN,
    CQ_LOG_ERROR
};

/* part: name of this process in every line. Call once before threads start. */
void cq_log_init(const char *part, enum cq_log_level level);
/* Level by name ("debug", "info", "warn", "error"); -1 if unknown. */
int cq_log_level_by_name(const char *name);
bool cq_log_is_on(enum cq_log_level level);
void cq_log_write(enum cq_log_level level, const char *id, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Hostile text made safe for a value: escapes into out (always NUL-terminated, cut at its size) and
 * returns out. */
const char *cq_log_text(const void *s, size_t n, char *out, size_t out_size);

/* id: PART-TOPIC-EVENT, unique per place. The level is tested before anything is formatted. */
#define CQ_LOG(level, id, ...)                             \
    do {                                                   \
        if (cq_log_is_on(CQ_LOG_##level)) {                \
            cq_log_write(CQ_LOG_##level, id, __VA_ARGS__); \
        }                                                  \
    } while (0)

#endif
