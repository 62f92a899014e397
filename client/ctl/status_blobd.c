/* SPDX-License-Identifier: MPL-2.0
 * status of a blobd: how much it has, how much room there is, when it last looked for damage.
 */
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "common/rt/loop.h"

#include "client/cli/output.h"
#include "client/ctl/ctl.h"

enum {
    CELL_SIZE = 32,
    COLUMNS = 8,
};
static const uint64_t minute_s = 60, hour_s = 3600, day_s = 86400;

static const struct {
    const char *metric;
    size_t offset;
} fields[] = {
    {"chasqui_blobd_blobs", offsetof(struct ctl_blobd, blobs)},
    {"chasqui_blobd_blob_bytes", offsetof(struct ctl_blobd, bytes)},
    {"chasqui_blobd_counted", offsetof(struct ctl_blobd, is_counted)},
    {"chasqui_blobd_room_bytes", offsetof(struct ctl_blobd, room_bytes)},
    {"chasqui_blobd_jobs_waiting", offsetof(struct ctl_blobd, jobs_waiting)},
    {"chasqui_blobd_uploads_open", offsetof(struct ctl_blobd, uploads_open)},
    {"chasqui_blobd_scrub_end_time_seconds", offsetof(struct ctl_blobd, scrub_end_s)},
    {"chasqui_blobd_damaged_total", offsetof(struct ctl_blobd, damaged)},
};

void
ctl_status_read_blobd(const cq_buf_t *metrics, struct ctl_blobd *b)
{
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        uint64_t value = 0;
        (void)ctl_metrics_value(metrics, fields[i].metric, &value);
        memcpy((uint8_t *)b + fields[i].offset, &value, sizeof value);
    }
}

static void
print_json(struct ctl *ctl, const char *name, const struct ctl_blobd *b)
{
    json_begin(&ctl->line, "blobd");
    json_str(&ctl->line, "name", name);
    if (b->is_counted) {
        json_uint(&ctl->line, "blobs", b->blobs);
        json_uint(&ctl->line, "bytes", b->bytes);
    } else {
        json_null(&ctl->line, "blobs");
        json_null(&ctl->line, "bytes");
    }
    json_uint(&ctl->line, "room_bytes", b->room_bytes);
    json_uint(&ctl->line, "jobs_waiting", b->jobs_waiting);
    json_uint(&ctl->line, "uploads_open", b->uploads_open);
    json_uint(&ctl->line, "damaged", b->damaged);
    if (b->scrub_end_s) {
        json_uint(&ctl->line, "scrubbed_unix_ms", b->scrub_end_s * 1000);
    } else {
        json_null(&ctl->line, "scrubbed_unix_ms");
    }
    json_end(&ctl->line);
}

/* How long ago something was. */
static void
age_text(uint64_t then_s, char out[CELL_SIZE])
{
    uint64_t now_s = cq_now_unix_ms() / 1000;
    uint64_t s = now_s > then_s ? now_s - then_s : 0;
    if (!then_s) {
        (void)snprintf(out, CELL_SIZE, "never");
    } else if (s < 2 * hour_s) {
        (void)snprintf(out, CELL_SIZE, "%" PRIu64 " min ago", s / minute_s);
    } else if (s < 2 * day_s) {
        (void)snprintf(out, CELL_SIZE, "%" PRIu64 " h ago", s / hour_s);
    } else {
        (void)snprintf(out, CELL_SIZE, "%" PRIu64 " days ago", s / day_s);
    }
}

static void
print_table(const char *name, const struct ctl_blobd *b)
{
    static const char *const titles[COLUMNS] = {"BLOBS OF", "BLOBS",   "BYTES",   "ROOM",
                                                "UPLOADS",  "WAITING", "DAMAGED", "SCRUBBED"};
    char cells[COLUMNS - 1][CELL_SIZE] = {"counting", "counting"};
    const char *row[COLUMNS] = {name};
    if (b->is_counted) {
        (void)snprintf(cells[0], CELL_SIZE, "%" PRIu64, b->blobs);
        (void)snprintf(cells[1], CELL_SIZE, "%" PRIu64 " MiB", b->bytes >> 20);
    }
    (void)snprintf(cells[2], CELL_SIZE, "%" PRIu64 " MiB", b->room_bytes >> 20);
    (void)snprintf(cells[3], CELL_SIZE, "%" PRIu64, b->uploads_open);
    (void)snprintf(cells[4], CELL_SIZE, "%" PRIu64, b->jobs_waiting);
    (void)snprintf(cells[5], CELL_SIZE, "%" PRIu64, b->damaged);
    age_text(b->scrub_end_s, cells[6]);
    for (int i = 1; i < COLUMNS; i++) {
        row[i] = cells[i - 1];
    }
    out_table_t *table = out_table_new(COLUMNS, titles);
    out_table_row(table, row, NULL);
    (void)printf("\n");
    out_table_print(&table, 0x7eU);
}

void
ctl_status_print_blobd(struct ctl *ctl, const char *name, const struct ctl_blobd *b)
{
    if (ctl->json) {
        print_json(ctl, name, b);
    } else {
        print_table(name, b);
    }
}
