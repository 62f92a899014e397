/* SPDX-License-Identifier: MPL-2.0 */
#include <stddef.h>

#include "common/wire/err.h"

#include "client/include/chasqui/client.h"

static const struct error_row {
    int error;
    const char *name;
    const char *text;
} error_rows[] = {
    {CQ_CLIENT_E_NOT_LOGGED_IN, "NOT_LOGGED_IN",
     "nobody is logged in on this device: sign up or log in"},
    {CQ_CLIENT_E_OTHER_USER, "OTHER_USER",
     "this home belongs to another user: choose another one with --home"},
    {CQ_CLIENT_E_STORE_KEY, "STORE_KEY",
     "this server shows another key than the one this device knows: it may be a forgery; nothing "
     "was sent"},
    {CQ_CLIENT_E_CLONED, "CLONED",
     "this device's data is a copy that is used elsewhere too: log in again to make it a device of "
     "its own"},
    {CQ_CLIENT_E_BAD_URL, "BAD_URL", "a server address is ws://HOST[:PORT][/PATH] or wss://…"},
    {CQ_CLIENT_E_TEXT, "TEXT", "a message is 1 to 16384 bytes of UTF-8 text"},
    {CQ_CLIENT_E_OFFLINE, "OFFLINE", "cannot reach a server"},
    {CQ_CLIENT_E_FILE, "FILE", "the file cannot be read, is no regular file, or changed meanwhile"},
    {CQ_CLIENT_E_UNTRUSTED, "UNTRUSTED",
     "the server's certificate is not trusted, or is for another name; --ca-file FILE adds an "
     "authority"},
    {CQ_CLIENT_E_EXISTS, "EXISTS", "there is a file of this name already"},
};

static const struct error_row *
find_error(int error)
{
    for (size_t i = 0; i < sizeof error_rows / sizeof error_rows[0]; i++) {
        if (error_rows[i].error == error || error_rows[i].error == -error) {
            return &error_rows[i];
        }
    }
    return NULL;
}

const char *
cq_client_error_name(int error)
{
    const struct error_row *row = find_error(error);
    return row ? row->name : cq_err_name(error);
}

const char *
cq_client_error_text(int error)
{
    const struct error_row *row = find_error(error);
    return row ? row->text : cq_err_text(error);
}
