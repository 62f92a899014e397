/* SPDX-License-Identifier: MPL-2.0
 * Errors: one list (err.def) makes the enum, the names and the texts.
 */
#ifndef CQ_WIRE_ERR_H
#define CQ_WIRE_ERR_H

enum cq_err {
    CQ_OK = 0,
#define CQ_ERR(name, number, text) CQ_E_##name = (number),
#include "common/wire/err.def"
#undef CQ_ERR
};

#define CQ_MUST_CHECK __attribute__((warn_unused_result))

/* Name ("NOT_FOUND") and text of an error. Takes the number with either sign; never returns NULL.
 */
const char *cq_err_name(int err);
const char *cq_err_text(int err);
/* Number of the error called NAME, or -1. */
int cq_err_by_name(const char *name);

#endif
