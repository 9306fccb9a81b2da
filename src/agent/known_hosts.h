/* SPDX-License-Identifier: MIT
 *
 * The host keys of relays, remembered on first use: a file with one line per relay,
 *     relay.example:443 ssh-ed25519 AAAAC3Nza…
 * Lines that begin with '#' and lines that cannot be read are left alone. Many processes may share
 * the file: a line is added with one append. Blocking file I/O, once per link. Owns nothing.
 */
#ifndef CV_AGENT_KNOWN_HOSTS_H
#define CV_AGENT_KNOWN_HOSTS_H

#include "base/slice.h"
#include "base/status.h"

enum { CV_KNOWN_HOSTS_MAX = 1024 * 1024 };

/* Looks up `relay` ("host:port", IPv6 in brackets) in the file and compares `blob` (the public key
 * as in RFC 8709). CV_OK: known and equal, or new; new ones are added and *is_new is true.
 * CV_HOST_KEY: another key is known; *error names file, line and what to do. CV_IO, CV_CONFIG (the
 * file cannot be read or written), CV_NO_MEMORY. */
struct cv_status cv_known_hosts_check(const char *path, const char *relay, struct cv_slice blob,
                                      bool *is_new, struct cv_error *error);

#endif
