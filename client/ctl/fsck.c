/* SPDX-License-Identifier: MPL-2.0
 * fsck: the store's job "fsck", or "fsck-blobs", which reads all blobs as well.
 */
#include "client/ctl/ctl.h"

int
ctl_fsck(struct ctl *ctl, struct ctl_args *args)
{
    const struct ctl_job_request request = {.kind =
                                                ctl_flag(args, "--blobs") ? "fsck-blobs" : "fsck",
                                            .path = "",
                                            .is_detached = ctl_flag(args, "--detach")};
    int rc = ctl_words(ctl, args, 0, 0);
    rc = rc ? rc : ctl_open(ctl);
    return rc ? rc : ctl_job_run(ctl, &request);
}
