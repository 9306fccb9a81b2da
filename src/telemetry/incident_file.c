/* SPDX-License-Identifier: MIT */
#include "telemetry/incident_report.h"

#include <string.h>

enum { FILE_VERSION = 1 };

static const char *const told_names[] = {"nothing", "firing", "resolved"};
static const char *const sink_names[] = {"alertmanager", "webhook"};

static json_t *entry_json(const struct cv_incident *incident)
{
    bool is_over = incident->fsm.state == CV_INCIDENT_OVER;
    return json_pack(
        "{s:s, s:s, s:s, s:b, s:I, s:I, s:i, s:s, s:s}", "kind",
        cv_incident_kind_info(incident->kind)->name, "subject", incident->subject, "summary",
        incident->summary, "is_over", is_over, "starts_ms", (json_int_t)incident->starts_ms,
        "ends_ms", (json_int_t)incident->ends_ms, "flaps", (int)incident->flaps,
        sink_names[CV_INCIDENT_ALERTMANAGER], told_names[incident->told[CV_INCIDENT_ALERTMANAGER]],
        sink_names[CV_INCIDENT_WEBHOOK], told_names[incident->told[CV_INCIDENT_WEBHOOK]]);
}

/* One that waits has not happened yet; one that has come back and waits is as it ended. */
static bool is_kept(const struct cv_incident *incident)
{
    return incident->is_used && incident->was_open && incident->fsm.state != CV_INCIDENT_WAITING;
}

char *cv_incidents_save(const struct cv_incidents *incidents)
{
    json_t *list = json_array();
    for (size_t i = 0; list && i < CV_INCIDENTS_MAX; i++)
        if (is_kept(&incidents->all[i]) &&
            json_array_append_new(list, entry_json(&incidents->all[i])) != 0) {
            json_decref(list);
            list = NULL;
        }
    if (!list)
        return NULL;
    json_t *file = json_pack("{s:i, s:o}", "version", FILE_VERSION, "incidents", list);
    char *text = file ? cv_json_text(file) : NULL;
    json_decref(file);
    return text;
}

static bool take_text(const json_t *entry, const char *name, size_t max, const char **out)
{
    const json_t *value = json_object_get(entry, name);
    if (!json_is_string(value) || json_string_length(value) > max ||
        strlen(json_string_value(value)) != json_string_length(value))
        return false;
    *out = json_string_value(value);
    return true;
}

static bool take_number(const json_t *entry, const char *name, uint64_t *out)
{
    const json_t *value = json_object_get(entry, name);
    if (!json_is_integer(value) || json_integer_value(value) < 0 ||
        json_integer_value(value) > 1LL << 50)
        return false;
    *out = (uint64_t)json_integer_value(value);
    return true;
}

/* The place of `text` in `names`. */
static bool take_choice(const char *text, const char *const *names, size_t count, unsigned *out)
{
    for (unsigned i = 0; i < count; i++)
        if (strcmp(text, names[i]) == 0) {
            *out = i;
            return true;
        }
    return false;
}

static bool take_entry(const json_t *entry, struct cv_incident_saved *saved)
{
    const char *kinds[CV_INCIDENT_KIND_COUNT], *kind, *told[CV_INCIDENT_SINK_COUNT];
    unsigned number, word;
    uint64_t flaps;
    for (unsigned i = 0; i < CV_INCIDENT_KIND_COUNT; i++)
        kinds[i] = cv_incident_kind_info((enum cv_incident_kind)i)->name;
    if (!take_text(entry, "kind", 32, &kind) ||
        !take_choice(kind, kinds, CV_INCIDENT_KIND_COUNT, &number) ||
        !take_text(entry, "subject", CV_INCIDENT_SUBJECT_MAX, &saved->subject) ||
        !take_text(entry, "summary", CV_INCIDENT_SUMMARY_MAX, &saved->summary) ||
        !json_is_boolean(json_object_get(entry, "is_over")) ||
        !take_number(entry, "starts_ms", &saved->starts_ms) ||
        !take_number(entry, "ends_ms", &saved->ends_ms) || !take_number(entry, "flaps", &flaps))
        return false;
    for (unsigned sink = 0; sink < CV_INCIDENT_SINK_COUNT; sink++) {
        if (!take_text(entry, sink_names[sink], 32, &told[sink]) ||
            !take_choice(told[sink], told_names, sizeof told_names / sizeof *told_names, &word))
            return false;
        saved->told[sink] = (enum cv_incident_told)word;
    }
    saved->kind = (enum cv_incident_kind)number;
    saved->is_over = json_is_true(json_object_get(entry, "is_over"));
    saved->flaps = flaps < CV_INCIDENT_FLAPS_MAX ? (unsigned)flaps : CV_INCIDENT_FLAPS_MAX;
    return true;
}

struct cv_status cv_incidents_load(struct cv_incidents *incidents, struct cv_slice text,
                                   const struct cv_incident_clock *at)
{
    json_t *file;
    CV_RETURN_IF_ERROR(cv_json_parse(text, &file));
    const json_t *list = json_object_get(file, "incidents");
    bool is_good =
        json_integer_value(json_object_get(file, "version")) == FILE_VERSION && json_is_array(list);
    for (size_t i = 0; is_good && i < json_array_size(list) && i < CV_INCIDENTS_MAX; i++) {
        struct cv_incident_saved saved = {0};
        is_good = take_entry(json_array_get(list, i), &saved);
        if (is_good)
            (void)cv_incidents_restore(incidents, &saved, at);
    }
    json_decref(file);
    return cv_status(is_good ? CV_OK : CV_INVALID);
}
