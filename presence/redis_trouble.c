/* SPDX-License-Identifier: MPL-2.0 */
#include "presence/redis_trouble.h"

#include <stddef.h>
#include <string.h>

#include "common/rt/metric.h"

struct words {
    const char *start; /* of what Redis says */
    const char *text;
};

static const struct words refusals[] = {
    {"NOAUTH",
     "Redis wants a password: put it into a file (0600) and name that redis-password-file"},
    {"WRONGPASS", "the password in redis-password-file is wrong: correct the file"},
    {"OOM", "Redis is full: raise its maxmemory or remove what others keep in it"},
    {"READONLY", "this Redis is a replica: let redis-socket name the primary, or promote this one"},
    {"MISCONF", "Redis cannot save to its disk: see its log, make room"},
    {"LOADING", "Redis still loads its data: wait"},
    {"BUSY", "a script blocks Redis: SCRIPT KILL"},
    {"NOPERM",
     "Redis' ACL forbids presence a command: allow GET SET DEL MGET SCAN PING on chasqui:*"},
    {"MASTERDOWN",
     "this Redis is a replica that lost its primary: let redis-socket name the primary"},
    {"NOREPLICAS",
     "Redis has too few replicas to accept writes: start them, or lower min-replicas-to-write"},
    {"ERR max number of clients", "Redis has too many clients: raise maxclients, or stop others"},
    {"WRONGTYPE", "somebody else writes chasqui: keys in this Redis: let only presence write them"},
};

static const struct words ends[] = {
    {"connect failed",
     "nobody answers at redis-socket: start redis-server, compare its unixsocket"},
    {"cannot connect",
     "nobody answers at redis-socket: start redis-server, compare its unixsocket"},
    {"connect timed out", "Redis hangs: see its log and whether it is stopped or swapped out"},
    {"no answer in time", "Redis hangs: see its log and whether it is stopped or swapped out"},
    {"not Redis' protocol", "whoever answers at redis-socket is not Redis: correct redis-socket"},
};

static const char *
find(const struct words *words, size_t count, const char *said, const char *otherwise)
{
    for (size_t i = 0; i < count; i++) {
        if (strncmp(said, words[i].start, strlen(words[i].start)) == 0) {
            return words[i].text;
        }
    }
    return otherwise;
}

const char *
presence_redis_trouble_of(const char *error)
{
    /* A value with spaces is quoted in the log. */
    return find(refusals, sizeof refusals / sizeof refusals[0], error + (error[0] == '"'),
                "Redis refuses commands: see the log of presence and Redis'");
}

const char *
presence_redis_trouble_down(const char *why, const char *error)
{
    const char *lost = "Redis is away: start it, see its log";
    const char *text = find(ends, sizeof ends / sizeof ends[0], why, NULL);
    return text ? text
                : find(refusals, sizeof refusals / sizeof refusals[0], error + (error[0] == '"'),
                       lost);
}

void
presence_redis_trouble_set(const char *what)
{
    cq_metric_trouble(what);
}
