/* SPDX-License-Identifier: MIT
 *
 * Any bytes as a settings file, for relay and agent: no crash, no leak, and what loads without a
 * problem is shown as YAML that loads again without one.
 */
#include "config/agent_config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_schema(const struct cv_schema *schema, struct cv_slice text)
{
    struct cv_problems problems;
    struct cv_buf shown;
    void *values = calloc(1, schema->size);
    if (!values)
        return;
    cv_problems_init(&problems);
    cv_buf_init(&shown, 16 * CV_CONFIG_FILE_MAX);
    struct cv_status status = cv_settings_load_text(schema, values, text, "fuzz", &problems);
    if ((status.id == CV_OK) != (problems.count == 0))
        abort();
    if (!cv_is_ok(cv_problems_print(&problems, &shown)))
        abort();
    cv_buf_consume(&shown, cv_buf_len(&shown));
    if (cv_is_ok(status) && cv_is_ok(cv_settings_show(schema, values, true, &shown))) {
        const struct cv_setting *proxy = cv_settings_find(schema, "proxy");
        bool is_masked = proxy && *(char **)((char *)values + proxy->offset);
        cv_settings_done(schema, values);
        status = cv_settings_load_text(schema, values, cv_buf_slice(&shown), "again", &problems);
        if (!cv_is_ok(status) && !is_masked && cv_buf_len(&shown) < CV_CONFIG_FILE_MAX)
            abort();
    }
    cv_settings_done(schema, values);
    cv_problems_done(&problems);
    cv_buf_done(&shown);
    free(values);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    try_schema(&cv_relay_schema, cv_slice(data, size));
    try_schema(&cv_agent_schema, cv_slice(data, size));
    return 0;
}
