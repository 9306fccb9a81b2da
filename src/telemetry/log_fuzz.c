/* SPDX-License-Identifier: MIT
 *
 * Any bytes as field, message and error detail: one line, of valid JSON, within its cap, without a
 * control character; and text without one.
 */
#include "telemetry/log_line.h"

#include <jansson.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_line(const struct cv_log_line *line)
{
    if (line->len == 0 || line->len > sizeof line->text || line->text[line->len - 1] != '\n')
        abort();
    for (size_t i = 0; i + 1 < line->len; i++)
        if ((unsigned char)line->text[i] < ' ' || line->text[i] == 0x7f)
            abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cv_error error = {.id = CV_CONN_REFUSED, .sys_errno = size ? data[0] : 0};
    char *message = strndup((const char *)data, size);
    if (!message)
        return 0;
    (void)snprintf(error.detail, sizeof error.detail, "%s", message);
    const struct cv_log_field fields[] = {CV_F_SLICE("a", cv_slice(data, size)),
                                          CV_F_STR("b", message),
                                          CV_F_ERROR(&error),
                                          {.kind = CV_LOG_FIELD_END}};
    const struct cv_log_record record = {.realtime_ms = 1790000000123,
                                         .level = CV_LOG_INFO,
                                         .component = "fuzz",
                                         .event = "fuzz",
                                         .message = message,
                                         .fields = fields,
                                         .suppressed = size,
                                         .version = "1",
                                         .instance = "x"};
    struct cv_log_line line;
    cv_log_line_json(&line, &record);
    check_line(&line);
    json_t *json = json_loadb(line.text, line.len, JSON_REJECT_DUPLICATES, NULL);
    if (!json)
        abort();
    json_decref(json);
    cv_log_line_text(&line, &record, false);
    check_line(&line);
    free(message);
    return 0;
}
