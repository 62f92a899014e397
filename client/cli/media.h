/* SPDX-License-Identifier: MPL-2.0
 * How pictures, files and voice messages look in a terminal.
 */
#ifndef CLIENT_CLI_MEDIA_H
#define CLIENT_CLI_MEDIA_H

#include "client/cli/cli.h"

/* What a line shows of a message, harmless, in a string of its own (free it): the text, or
 * "[picture cat.jpg 2.1 MB — chasqui get mia 12] caption". seq 0: without the command. columns: cut
 * to so many, 0: all. */
char *cli_media_line(const char *text,
                     size_t text_size,
                     const cq_client_media_t *media,
                     const char *peer,
                     uint64_t seq,
                     size_t columns);
/* "2.1 MB" */
const char *cli_media_size(uint64_t bytes, char *out, size_t size);
/* The thumbnail, drawn by the program chafa if it is there and standard output is a terminal with
 * colours. */
void cli_media_draw(const cq_client_media_t *media);
/* Fields "media_type", "name", "size" …; null for a text. */
void cli_media_json(cq_buf_t *line, const cq_client_media_t *media);

#endif
