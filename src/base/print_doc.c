/* SPDX-License-Identifier: MIT */
#include "base/print_doc.h"

enum { DOC_MAX = 1024 * 1024 };

static bool is_same(const char *path, struct cv_slice want)
{
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    bool same = true;
    for (size_t i = 0; i <= want.len && same; i++)
        same = fgetc(file) == (i < want.len ? (int)want.data[i] : EOF);
    (void)fclose(file);
    return same;
}

int cv_doc_main(int argc, char **argv, const char *program,
                struct cv_status (*write)(struct cv_buf *out))
{
    struct cv_buf out;
    cv_buf_init(&out, DOC_MAX);
    bool is_done = cv_is_ok(write(&out));
    struct cv_slice text = cv_buf_slice(&out);
    if (is_done && argc == 2) {
        is_done = is_same(argv[1], text);
        if (!is_done)
            (void)fprintf(stderr, "%s is not what the tables say: write it anew with %s\n", argv[1],
                          program);
    } else if (is_done) {
        is_done = text.len > 0 && fwrite(text.data, 1, text.len, stdout) == text.len;
    }
    cv_buf_done(&out);
    return is_done ? 0 : 1;
}
