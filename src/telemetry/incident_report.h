/* SPDX-License-Identifier: MIT
 *
 * What is told of an incident, as JSON: to Alertmanager (POST /api/v2/alerts) and to a webhook, and
 * what is kept of all of them in a file (docs/incidents.md has the formats). For operators: names
 * of tunnels and numbers, never a user's name, an address, or anything that a request carried.
 * Owns nothing; any thread.
 */
#ifndef CV_TELEMETRY_INCIDENT_REPORT_H
#define CV_TELEMETRY_INCIDENT_REPORT_H

#include "base/json.h"
#include "base/slice.h"
#include "telemetry/incident.h"
#include "telemetry/incident_trend.h"

enum { CV_INCIDENT_TUNNELS_MAX = 10, CV_INCIDENT_FILE_MAX = 256 * 1024 };

/* How things stand as it is told. Borrowed for the call. */
struct cv_incident_context {
    const char *instance, *version;
    const char *runbook_url;   /* what stands before "/breaker-open.md"; NULL: no link */
    const char *dashboard_url; /* before "/culvert-errors"; NULL: no link */
    unsigned links, requests;  /* now */
    struct cv_trend_view trend;
    /* Breaker ids of tunnels that are in trouble, whatever the incident is about. */
    const char (*tunnels)[CV_INCIDENT_SUBJECT_MAX + 1];
    size_t tunnel_count;
};

/* An element of the array that Alertmanager takes. `told` CV_TOLD_RESOLVED: it ends at `end_ms`
 * (Unix time), which is in the near future, so that another relay that still sees it can keep it
 * alive. NULL without memory; the caller's. */
json_t *cv_incident_alert(const struct cv_incident *incident, enum cv_incident_told told,
                          uint64_t end_ms, const struct cv_incident_context *context);

/* The body for a webhook, text to free(3). NULL without memory. */
char *cv_incident_hook(const struct cv_incident *incident, enum cv_incident_told told,
                       const struct cv_incident_context *context);

/* The same for the same word about the same episode, whatever relay and however often. */
enum { CV_INCIDENT_WORD_MAX = 64 };
void cv_incident_word(const struct cv_incident *incident, enum cv_incident_told told,
                      char word[CV_INCIDENT_WORD_MAX]);

/* All that must survive the process, text to free(3). NULL without memory. */
char *cv_incidents_save(const struct cv_incidents *incidents);

/* Takes back what cv_incidents_save has written. CV_INVALID: it is not that; what could be
 * understood is there. CV_NO_MEMORY. */
struct cv_status cv_incidents_load(struct cv_incidents *incidents, struct cv_slice text,
                                   const struct cv_incident_clock *at);

#endif
