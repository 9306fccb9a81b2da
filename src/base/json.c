/* SPDX-License-Identifier: MIT */
#include "base/json.h"

#include <stdlib.h>

/* The one exception to "no mutable globals": jansson's hooks are functions of the process without
 * an argument, so what they saw can only be kept beside the thread that called it. */
static _Thread_local bool has_been_refused;
static json_malloc_t allocate_with;

static void *allocate(size_t len)
{
    void *at = allocate_with(len);
    if (!at)
        has_been_refused = true;
    return at;
}

void cv_json_init_with(json_malloc_t allocator, json_free_t release)
{
    allocate_with = allocator;
    json_set_alloc_funcs(allocate, release);
}

void cv_json_init(void)
{
    cv_json_init_with(malloc, free);
}

struct cv_status cv_json_parse(struct cv_slice text, json_t **value)
{
    has_been_refused = false;
    *value = json_loadb((const char *)text.data, text.len, JSON_REJECT_DUPLICATES, NULL);
    if (!has_been_refused)
        return cv_status(*value ? CV_OK : CV_INVALID);
    json_decref(*value);
    *value = NULL;
    return cv_status(CV_NO_MEMORY);
}

char *cv_json_text(const json_t *value)
{
    has_been_refused = false;
    char *text = json_dumps(value, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_ENCODE_ANY);
    if (!has_been_refused)
        return text;
    free(text);
    return NULL;
}
