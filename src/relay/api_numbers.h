/* SPDX-License-Identifier: MIT
 *
 * Numbers of store/usage.h as the management API shows them. Own thread, no state.
 */
#ifndef CV_RELAY_API_NUMBERS_H
#define CV_RELAY_API_NUMBERS_H

#include "store/usage.h"

#include <jansson.h>

struct api_metric;

/* NULL: there is no such metric. */
const struct api_metric *api_metric_find(struct cv_slice name);
const char *api_metric_name(const struct api_metric *metric);
const char *api_metric_unit(const struct api_metric *metric);
/* All names, with commas. */
void api_metric_names(char *out, size_t cap);

/* Its value over `span_s` seconds in which `usage` (NULL: nothing) was done: null where there is
 * none, such as the latency of no requests. NULL without memory. */
json_t *api_metric_value(const struct api_metric *metric, const struct cv_usage *usage,
                         unsigned span_s);

/* Everything of `usage` as an object. NULL without memory. */
json_t *api_usage_json(const struct cv_usage *usage);

#endif
