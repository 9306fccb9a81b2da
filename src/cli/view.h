/* SPDX-License-Identifier: MIT
 *
 * How an agent is, in a few lines that stay where they are: on a terminal each picture replaces the
 * one before, elsewhere a line comes when something changes. From the answer to
 * `{"command":"status"}` (docs/PROTOCOL.md). Private to cli/; main thread, stdout.
 */
#ifndef CV_CLI_VIEW_H
#define CV_CLI_VIEW_H

#include "base/buf.h"
#include "base/json.h"

struct cv_view {
    bool is_terminal; /* stdout is */
    unsigned lines;   /* of the last picture, which the next one replaces */
    char state[160];  /* that was told last, where it is none */
};

void cv_view_init(struct cv_view *view);

/* Appends the lines of one agent. CV_NO_RESOURCES, CV_NO_MEMORY. */
struct cv_status cv_view_agent(const json_t *status, struct cv_buf *out);

/* On a terminal: shows `text` (whole lines) where the last picture was, cut at its width. */
void cv_view_show(struct cv_view *view, const struct cv_buf *text);

/* Elsewhere: one line, when it differs from the last. */
void cv_view_tell(struct cv_view *view, const json_t *status);

/* What is on the screen stays there; the next picture comes below. */
void cv_view_leave(struct cv_view *view);

#endif
