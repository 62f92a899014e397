/* SPDX-License-Identifier: MPL-2.0
 * Making a database from a backup: chasqui-store --restore BACKUP --data DIR
 * [--blobs DIR].
 */
#ifndef STORE_RESTORE_H
#define STORE_RESTORE_H

#include "store/core.h"

/* Puts the database of the backup into cfg->data, which must not exist or be empty. Verified are
 * the manifest, the file's hash, the database in it and that the master key opens it. It gets a new
 * epoch; an older schema is migrated when the store starts. Made as DIR.restoring; cfg->data is
 * there when all of it is on the disk. If cfg->blobs is not "", the backup's blobs are restored
 * into that folder in the same way, each checked, before cfg->data gets its name. 0, or an error
 * that was logged with what to do. */
int store_restore_run(const struct store_core_cfg *cfg, const char *backup) CQ_MUST_CHECK;

#endif
