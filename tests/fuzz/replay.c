/* SPDX-License-Identifier: MPL-2.0
 * Runs a fuzz target over files and folders of inputs, where libFuzzer is not there. Each input
 * gets a block of its own size, so that a sanitizer sees a step over its end.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/fuzz/fuzz_wire.h"

enum {
    PATH_SIZE = 4096
};

static int
replay_file(const char *path)
{
    struct stat st;
    FILE *f = fopen(path, "re");
    if (!f || fstat(fileno(f), &st) != 0) {
        (void)fprintf(stderr, "replay: cannot read %s\n", path);
        exit(EXIT_FAILURE); /* NOLINT(concurrency-mt-unsafe) one thread */
    }
    size_t n = (size_t)st.st_size;
    uint8_t *data = malloc(n ? n : 1);
    if (!data || fread(data, 1, n, f) != n) {
        (void)fprintf(stderr, "replay: cannot read %s\n", path);
        exit(EXIT_FAILURE); /* NOLINT(concurrency-mt-unsafe) one thread */
    }
    (void)fclose(f);
    (void)LLVMFuzzerTestOneInput(data, n);
    free(data);
    return 1;
}

static int
replay_folder(const char *path)
{
    char name[PATH_SIZE];
    int count = 0;
    DIR *folder = opendir(path);
    if (!folder) {
        return replay_file(path);
    }
    struct dirent *entry;
    while ((entry = readdir(folder))) { /* NOLINT(concurrency-mt-unsafe) one thread */
        if (entry->d_name[0] != '.') {
            (void)snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
            count += replay_file(name);
        }
    }
    (void)closedir(folder);
    return count;
}

int
main(int argc, char **argv)
{
    int count = 0;
    for (int i = 1; i < argc; i++) {
        int found = replay_folder(argv[i]);
        if (found == 0) {
            (void)fprintf(stderr, "replay: nothing in %s\n", argv[i]);
            return EXIT_FAILURE;
        }
        count += found;
    }
    printf("replayed %d inputs\n", count);
    return count ? EXIT_SUCCESS : EXIT_FAILURE;
}
