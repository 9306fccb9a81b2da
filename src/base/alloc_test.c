/* SPDX-License-Identifier: MIT */
#include "base/alloc_test.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

void *__real_malloc(size_t len);
void *__real_calloc(size_t count, size_t len);
void *__real_realloc(void *old, size_t len);
void *__real_reallocarray(void *old, size_t count, size_t len);
char *__real_strdup(const char *text);
char *__real_strndup(const char *text, size_t len);
void *__wrap_malloc(size_t len);
void *__wrap_calloc(size_t count, size_t len);
void *__wrap_realloc(void *old, size_t len);
void *__wrap_reallocarray(void *old, size_t count, size_t len);
char *__wrap_strdup(const char *text);
char *__wrap_strndup(const char *text, size_t len);

static atomic_size_t until_failure; /* 0: none fails; 1: the next one */
static atomic_bool has_failed;

void cv_test_alloc_fail_at(size_t n)
{
    atomic_store(&has_failed, false);
    atomic_store(&until_failure, n);
}

bool cv_test_alloc_has_failed(void)
{
    return atomic_load(&has_failed);
}

bool cv_test_alloc_stop(void)
{
    atomic_store(&until_failure, 0);
    return atomic_load(&has_failed);
}

static bool is_refused(void)
{
    size_t left = atomic_load(&until_failure);
    do
        if (left == 0)
            return false;
    while (!atomic_compare_exchange_weak(&until_failure, &left, left - 1));
    if (left > 1)
        return false;
    atomic_store(&has_failed, true);
    errno = ENOMEM;
    return true;
}

void *__wrap_malloc(size_t len)
{
    return is_refused() ? NULL : __real_malloc(len);
}

void *__wrap_calloc(size_t count, size_t len)
{
    return is_refused() ? NULL : __real_calloc(count, len);
}

void *__wrap_realloc(void *old, size_t len)
{
    return is_refused() ? NULL : __real_realloc(old, len);
}

void *__wrap_reallocarray(void *old, size_t count, size_t len)
{
    return is_refused() ? NULL : __real_reallocarray(old, count, len);
}

char *__wrap_strdup(const char *text)
{
    return is_refused() ? NULL : __real_strdup(text);
}

char *__wrap_strndup(const char *text, size_t len)
{
    return is_refused() ? NULL : __real_strndup(text, len);
}

void *cv_test_malloc(size_t len)
{
    return __wrap_malloc(len);
}

void cv_test_free(void *at)
{
    free(at);
}
