/* SPDX-License-Identifier: MPL-2.0
 * What chasqui-probe writes: one msgpack array [type, width, height, duration_ms, thumbnail]. The
 * type is empty for what is neither a picture nor a sound; the thumbnail is empty when the picture
 * cannot or may not be decoded.
 */
#ifndef CLIENT_PROBE_FORM_H
#define CLIENT_PROBE_FORM_H

enum {
    CQ_PROBE_FIELDS = 5
};

#endif
