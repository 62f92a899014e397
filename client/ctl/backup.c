/* SPDX-License-Identifier: MPL-2.0
 * backup DIR: the store's job "backup", or "backup-database" if the blobs are not wanted.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "client/ctl/ctl.h"

static const char note[] =
    "The master key is not in the backup. Keep a copy of it (keys/master.key) somewhere else: "
    "without it nobody can read the backup, with it anybody can.";

/* The store does not know our working directory. */
static bool
make_absolute(const char *path, char *out, size_t size)
{
    char here[CTL_PATH_MAX];
    if (path[0] == '/') {
        return snprintf(out, size, "%s", path) < (int)size;
    }
    return getcwd(here, sizeof here) && snprintf(out, size, "%s/%s", here, path) < (int)size;
}

int
ctl_backup(struct ctl *ctl, struct ctl_args *args)
{
    char path[CQ_JOB_PATH_MAX + 1];
    bool is_detached = ctl_flag(args, "--detach");
    bool has_blobs = !ctl_flag(args, "--no-blobs");
    int rc = ctl_words(ctl, args, 1, 1);
    if (rc) {
        return rc;
    }
    if (!args->v[0][0] || !make_absolute(args->v[0], path, sizeof path) ||
        !cq_utf8_ok(path, strlen(path))) {
        return ctl_fail(ctl, CTL_USAGE, "USAGE", "\"%s\" is not a path that can be used",
                        args->v[0]);
    }
    const struct ctl_job_request request = {has_blobs ? "backup" : "backup-database", path,
                                            is_detached, note};
    rc = ctl_open(ctl);
    return rc ? rc : ctl_job_run(ctl, &request);
}
