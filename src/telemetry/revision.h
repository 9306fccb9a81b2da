/* SPDX-License-Identifier: MIT
 *
 * Which commit this program was built from.
 */
#ifndef CV_TELEMETRY_REVISION_H
#define CV_TELEMETRY_REVISION_H

/* The first 12 digits, with -dirty behind them when files had been changed; "unknown" outside a
 * repository. Made by meson from revision.c.in. */
extern const char cv_revision[];

#endif
