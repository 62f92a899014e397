/* SPDX-License-Identifier: MPL-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/wire/pack.h"

#include "client/probe.h"
#include "client/probe/probe.h"
#include "client/probe_form.h"

enum {
    MEMORY_MAX = 1 << 30,
    CPU_S = 10,
};

static void
limit(int what, rlim_t most)
{
    const struct rlimit r = {most, most};
    (void)setrlimit(what, &r);
}

/* Decoders that go wrong get no further than this process. (The sanitizers need address space.) */
static void
confine(void)
{
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    limit(RLIMIT_AS, MEMORY_MAX);
#endif
    limit(RLIMIT_CPU, CPU_S);
    limit(RLIMIT_CORE, 0);
    limit(RLIMIT_FSIZE, 0);
    limit(RLIMIT_NPROC, 0);
    (void)prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

static void
answer(const struct probe *p)
{
    cq_buf_t b = {0};
    const char *type = p->type ? p->type : "";
    cq_pack_array(&b, CQ_PROBE_FIELDS);
    cq_pack_str(&b, type, strlen(type));
    cq_pack_uint(&b, p->width);
    cq_pack_uint(&b, p->height);
    cq_pack_uint(&b, p->duration_ms);
    cq_pack_bin(&b, p->thumbnail, p->thumbnail_size);
    bool is_written = fwrite(b.data, 1, b.size, stdout) == b.size && fflush(stdout) == 0;
    cq_buf_free(&b);
    if (!is_written) {
        _exit(EXIT_FAILURE);
    }
}

int
main(void)
{
    static struct probe p;
    struct cq_picture head;
    struct stat st;
    confine();
    if (fstat(STDIN_FILENO, &st) || !S_ISREG(st.st_mode) || !st.st_size) {
        answer(&p);
        return EXIT_SUCCESS;
    }
    p.size = (size_t)st.st_size;
    p.data = mmap(NULL, p.size, PROT_READ, MAP_PRIVATE, STDIN_FILENO, 0);
    if (p.data == MAP_FAILED) {
        return EXIT_FAILURE;
    }
    int rc = cq_picture_read(p.data, p.size, &head);
    if (rc == 0) {
        probe_image(&p, &head);
    } else if (rc == -CQ_E_NOT_FOUND) {
        probe_sound(&p, STDIN_FILENO);
    } else {
        p.type = cq_picture_type_name(head.type);
    }
    answer(&p);
    return EXIT_SUCCESS;
}
