/* SPDX-License-Identifier: MIT
 *
 * Proves that docs/errors (its path is the argument) has a page for every code of the status table,
 * with a row for each of its statuses that says the same, that the index lists it, and that there
 * is no page beyond.
 */
#include "base/status.h"

#include <dirent.h>

#define PAGE_MAX (64 * 1024)

static bool read_page(const char *dir, const char *name, char page[PAGE_MAX])
{
    char path[4096];
    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *file = fopen(path, "re");
    if (!file) {
        (void)fprintf(stderr, "%s is missing\n", path);
        return false;
    }
    size_t len = fread(page, 1, PAGE_MAX - 1, file);
    page[len] = '\0';
    (void)fclose(file);
    return true;
}

static bool expect(const char *name, const char *page, const char *want)
{
    if (strstr(page, want))
        return true;
    (void)fprintf(stderr, "%s lacks: %s", name, want);
    return false;
}

static bool check_status(const char *dir, const char *index, enum cv_status_id id)
{
    static char page[PAGE_MAX];
    char name[32];
    char want[512];
    const char *code = cv_status_code(id);
    if (!code[0])
        return true;
    (void)snprintf(name, sizeof name, "%s.md", code);
    if (!read_page(dir, name, page))
        return false;
    (void)snprintf(want, sizeof want, "| `%s` | %s | %d | %s | %s |\n", cv_status_name(id),
                   cv_category_name(cv_status_category(id)), cv_status_http(id),
                   cv_status_is_retryable(id) ? "yes" : "no", cv_status_text(id));
    bool is_good = expect(name, page, want);
    (void)snprintf(want, sizeof want, "| [%s](%s) |", code, name);
    is_good = expect("README.md", index, want) && is_good;
    return expect(name, page, "\n## Typical causes\n") && expect(name, page, "\n## What to do\n") &&
           is_good;
}

static bool has_code(const char *file)
{
    for (int id = 0; id < CV_STATUS_COUNT; id++) {
        const char *code = cv_status_code((enum cv_status_id)id);
        size_t len = strlen(code);
        if (len && strncmp(file, code, len) == 0 && strcmp(file + len, ".md") == 0)
            return true;
    }
    return false;
}

static bool check_files(const char *path)
{
    DIR *dir = opendir(path);
    if (!dir)
        return false;
    bool is_good = true;
    for (const struct dirent *entry; (entry = readdir(dir));) {
        if (strncmp(entry->d_name, "TUNNEL_", 7) != 0 || has_code(entry->d_name))
            continue;
        (void)fprintf(stderr, "%s/%s is of no code\n", path, entry->d_name);
        is_good = false;
    }
    (void)closedir(dir);
    return is_good;
}

int main(int argc, char **argv)
{
    static char index[PAGE_MAX];
    if (argc != 2 || !read_page(argv[1], "README.md", index))
        return 1;
    bool is_good = check_files(argv[1]);
    for (int id = 0; id < CV_STATUS_COUNT; id++)
        is_good = check_status(argv[1], index, (enum cv_status_id)id) && is_good;
    return is_good ? 0 : 1;
}
