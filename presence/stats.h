/* SPDX-License-Identifier: MPL-2.0
 * Counters and gauges of presence, once: PRESENCE_STAT(name, type, "description").
 */
#ifndef PRESENCE_STATS_H
#define PRESENCE_STATS_H

#include <stdint.h>

#define PRESENCE_STATS(X)                                                                       \
    X(sessions, GAUGE, "sessions known")                                                        \
    X(sessions_dead, GAUGE, "sessions of edges that went down, to be removed")                  \
    X(users, GAUGE, "users with a session")                                                     \
    X(visible_users, GAUGE, "users whom friends see online")                                    \
    X(edges_unannounced, GAUGE, "live edges that have not announced their sessions")            \
    X(ready, GAUGE, "1 if routes are delivered")                                                \
    X(watch_links, GAUGE, "who-sees-whom pairs in memory")                                      \
    X(session_ups_total, COUNTER, "SESSION_UP taken")                                           \
    X(session_refused_total, COUNTER, "SESSION_UP refused at a limit or from an unknown edge")  \
    X(session_downs_total, COUNTER, "SESSION_DOWN taken")                                       \
    X(edge_downs_total, COUNTER, "edges that went down")                                        \
    X(routes_total, COUNTER, "ROUTE taken")                                                     \
    X(routes_held_total, COUNTER, "ROUTE held until ready")                                     \
    X(routes_held, GAUGE, "ROUTE held now")                                                     \
    X(routes_dropped_total, COUNTER, "ROUTE dropped without being confirmed")                   \
    X(routes_untracked_total, COUNTER, "durable ROUTE delivered without confirming")            \
    X(bad_events_total, COUNTER, "events that are no operation or larger than a push, dropped") \
    X(delivers_total, COUNTER, "DELIVER sent")                                                  \
    X(delivered_bad_total, COUNTER, "DELIVERED with a number never given")                      \
    X(routed_total, COUNTER, "ROUTED sent")                                                     \
    X(changes_total, COUNTER, "users who came, left, or whose times changed")                   \
    X(notes_total, COUNTER, "notes of changes to sessions")                                     \
    X(states_total, COUNTER, "friends' states in all notes")                                    \
    X(first_notes_total, COUNTER, "sessions told about their friends when they came")           \
    X(changes_pending, GAUGE, "users whose change waits to be told")                            \
    X(lookups_total, COUNTER, "LOOKUP taken")                                                   \
    X(lookups_refused_total, COUNTER, "LOOKUP refused at a limit")                              \
    X(lookups_pending, GAUGE, "LOOKUP waiting for something")                                   \
    X(watchlists_total, COUNTER, "WATCHLIST asked")                                             \
    X(watchlists_failed_total, COUNTER, "WATCHLIST without an answer")                          \
    X(bad_items_total, COUNTER, "items from the bus that could not be read")                    \
    X(redis_up, GAUGE, "1 if Redis answers")                                                    \
    X(redis_refusing, GAUGE, "1 while Redis refuses to be written to")                          \
    X(redis_commands_total, COUNTER, "commands sent to Redis")                                  \
    X(redis_errors_total, COUNTER, "commands that Redis refused or did not answer")             \
    X(redis_timeouts_total, COUNTER, "connections given up because Redis did not answer")       \
    X(redis_connects_total, COUNTER, "connections to Redis that worked")                        \
    X(redis_rewrites_total, COUNTER, "times that everything was written to Redis again")        \
    X(redis_refusals_total, COUNTER, "times that Redis began to refuse to be written to")       \
    X(redis_left_dropped_total, COUNTER, "last-seen times dropped while Redis was away")

struct presence_stats {
#define X(name, type, doc) uint64_t name;
    PRESENCE_STATS(X)
#undef X
};

/* Written by the loop thread alone. */
extern struct presence_stats presence_stats;

/* Registers all of them with the metrics of the process. */
void presence_stats_register(void);

#endif
