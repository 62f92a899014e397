/* SPDX-License-Identifier: MPL-2.0
 * chasqui-store --fsck: checks a database that no store has open.
 */
#ifndef STORE_FSCK_OFFLINE_H
#define STORE_FSCK_OFFLINE_H

#include "store/core.h"

/* Opens the folder and the vault of the configuration, checks, prints progress on standard error (a
 * terminal's) and the report on standard output. The exit code: 0 clean, 1 findings, 2 it could not
 * run, with a sentence on standard error. */
int store_fsck_offline_run(const struct store_core_cfg *cfg) CQ_MUST_CHECK;

#endif
