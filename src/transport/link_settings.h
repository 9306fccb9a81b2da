/* SPDX-License-Identifier: MIT
 *
 * What a link takes from settings. Relay and agent have the same ones, under the same names, in
 * configurations of different types: hence a macro, the only place that says which is which.
 */
#ifndef CV_TRANSPORT_LINK_SETTINGS_H
#define CV_TRANSPORT_LINK_SETTINGS_H

#include <stdint.h>

/* What a stream can hold at most, see cv_stream_window_max. */
#define CV_LINK_WINDOW_MAX(c)                                                                      \
    ((size_t)((c)->ssh_window_bytes > (c)->ssh_window_max_bytes ? (c)->ssh_window_bytes            \
                                                                : (c)->ssh_window_max_bytes))

/* Initializers of a struct cv_link_options from the configuration `c`; replay_bytes and ration are
 * the caller's, since the relay gives each link a share. */
#define CV_LINK_SETTINGS(c)                                                                        \
    .max_channels = (c)->ssh_max_channels, .window_bytes = (uint32_t)(c)->ssh_window_bytes,        \
    .window_max_bytes = (uint32_t)(c)->ssh_window_max_bytes,                                       \
    .replay_max_bytes = (size_t)(c)->link_replay_max_bytes,                                        \
    .has_compression = (c)->ssh_compression, .rekey_bytes = (c)->ssh_rekey_bytes,                  \
    .rekey_ms = (uint32_t)(c)->ssh_rekey_interval_ms,                                              \
    .handshake_ms = (uint32_t)(c)->ssh_handshake_timeout_ms,                                       \
    .keepalive_ms =                                                                                \
        (c)->ssh_keepalive_interval_ms ? (uint32_t)(c)->ssh_keepalive_interval_ms : UINT32_MAX,    \
    .ping_interval_ms = (uint32_t)(c)->ws_ping_interval_ms,                                        \
    .pong_timeout_ms = (uint32_t)(c)->ws_pong_timeout_ms,                                          \
    .max_frame_bytes = (c)->ws_max_frame_bytes, .resume_ms = (c)->link_resume_window_ms

#endif
