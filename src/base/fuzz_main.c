/* SPDX-License-Identifier: MIT
 *
 * A fuzz harness without libFuzzer, so that every build and every compiler runs it:
 *     x_fuzz_replay ROUNDS [FILE|FOLDER]...
 * Each file once as it is, in the order of names, then ROUNDS mutations of them from a fixed seed,
 * by the harness's own mutator where it has one. An input that ends the process is left in a file
 * whose name is printed.
 */
#include "base/fuzz.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#pragma weak LLVMFuzzerCustomMutator

enum { INPUT_MAX = 1 << 20, MUTATION_MAX = 1 << 14, CORPUS_MAX = 4096 };

struct seed {
    uint8_t *data;
    size_t len;
};

struct corpus {
    struct seed seeds[CORPUS_MAX];
    size_t count;
};

/* The engine's state, for LLVMFuzzerMutate and for the report of a crash; signal handlers and
 * libFuzzer's interface leave no other place. */
static uint64_t random_state = 0x9e3779b97f4a7c15;
static uint8_t current[INPUT_MAX];
static volatile size_t current_len;

static void leave_input(int number)
{
    char path[] = "fuzz-crash-XXXXXX";
    int fd = mkstemp(path);
    if (fd >= 0 && write(fd, current, current_len) == (ssize_t)current_len) {
        (void)!write(STDERR_FILENO, "the input is in ", 16);
        (void)!write(STDERR_FILENO, path, sizeof path - 1);
        (void)!write(STDERR_FILENO, "\n", 1);
    }
    (void)signal(number, SIG_DFL);
    (void)raise(number);
}

/* Deletes, doubles, flips or overwrites a short run. */
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size)
{
    static const char interesting[] =
        "\0\1\x7f\x80\xff\r\n \t:;,=\"\\0123456789aAfFxX/?#%*@[]{}.-_+";
    size_t at = size ? cv_fuzz_random(&random_state) % size : 0;
    size_t run = 1 + cv_fuzz_random(&random_state) % 8;
    if (run > size - at)
        run = size - at;
    uint8_t byte = (uint8_t)interesting[cv_fuzz_random(&random_state) % (sizeof interesting - 1)];
    switch (size ? cv_fuzz_random(&random_state) % 5 : 2) {
    case 0:
        memmove(data + at, data + at + run, size - at - run);
        return size - run;
    case 1:
        if (size + run > max_size)
            return size;
        memmove(data + at + run, data + at, size - at);
        return size + run;
    case 2:
        if (size + 1 > max_size)
            return size;
        memmove(data + at + 1, data + at, size - at);
        data[at] = byte;
        return size + 1;
    case 3:
        data[at] ^= (uint8_t)(1U << cv_fuzz_random(&random_state) % 8);
        return size;
    default:
        data[at] = byte;
        return size;
    }
}

static void run(const uint8_t *data, size_t len)
{
    memcpy(current, data, len);
    current_len = len;
    uint8_t *copy = cv_fuzz_copy(data, len);
    (void)LLVMFuzzerTestOneInput(copy, len);
    free(copy);
}

static void run_mutation(const struct corpus *corpus)
{
    static uint8_t data[MUTATION_MAX];
    size_t len = 0;
    if (corpus->count) {
        const struct seed *seed = &corpus->seeds[cv_fuzz_random(&random_state) % corpus->count];
        len = seed->len < sizeof data ? seed->len : sizeof data;
        memcpy(data, seed->data, len);
    }
    for (uint64_t left = 1 + cv_fuzz_random(&random_state) % 5; left > 0; left--) {
        if (LLVMFuzzerCustomMutator && cv_fuzz_random(&random_state) % 4)
            len = LLVMFuzzerCustomMutator(data, len, sizeof data,
                                          (unsigned)cv_fuzz_random(&random_state));
        else
            len = LLVMFuzzerMutate(data, len, sizeof data);
    }
    run(data, len);
}

static int add_file(struct corpus *corpus, const char *path)
{
    static uint8_t data[INPUT_MAX];
    FILE *file = fopen(path, "rb");
    if (!file || corpus->count == CORPUS_MAX) {
        (void)fprintf(stderr, "cannot read %s\n", path);
        return 1;
    }
    size_t len = fread(data, 1, sizeof data, file);
    (void)fclose(file);
    corpus->seeds[corpus->count++] = (struct seed){cv_fuzz_copy(data, len), len};
    return 0;
}

static int add(struct corpus *corpus, const char *path)
{
    struct stat info;
    struct dirent **names = NULL;
    if (stat(path, &info) != 0 || !S_ISDIR(info.st_mode))
        return add_file(corpus, path);
    int failed = 0, count = scandir(path, &names, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        char file[4096];
        int len = snprintf(file, sizeof file, "%s/%s", path, names[i]->d_name);
        if (names[i]->d_name[0] != '.')
            failed |= len < 0 || (size_t)len >= sizeof file || add_file(corpus, file);
        free(names[i]);
    }
    free(names);
    return failed || count < 0;
}

int main(int argc, char **argv)
{
    static struct corpus corpus;
    static const int fatal[] = {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL};
    unsigned long rounds = argc > 1 ? strtoul(argv[1], NULL, 10) : 0;
    int failed = 0;
    for (size_t i = 0; i < sizeof fatal / sizeof fatal[0]; i++) {
        struct sigaction action = {.sa_handler = leave_input};
        (void)sigaction(fatal[i], &action, NULL);
    }
    for (int i = 2; i < argc; i++)
        failed |= add(&corpus, argv[i]);
    for (size_t i = 0; i < corpus.count; i++)
        run(corpus.seeds[i].data, corpus.seeds[i].len);
    for (unsigned long i = 0; i < rounds; i++)
        run_mutation(&corpus);
    for (size_t i = 0; i < corpus.count; i++)
        free(corpus.seeds[i].data);
    (void)printf("%zu inputs, %lu mutations\n", corpus.count, rounds);
    return failed;
}
