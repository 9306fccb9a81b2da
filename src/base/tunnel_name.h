/* SPDX-License-Identifier: MIT
 *
 * The one rule for names of tunnels: `[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?`, a DNS label in lower
 * case (RFC 1123 §2.1), so that it fits into a host name and a path alike. Any thread.
 */
#ifndef CV_BASE_TUNNEL_NAME_H
#define CV_BASE_TUNNEL_NAME_H

#include "base/slice.h"

#define CV_TUNNEL_NAME_MAX 63

/* A link's own tunnel to itself, which nobody else reaches and no list shows: `culvert diagnose`
 * sends bytes around through the relay. No valid name, so that it is in nobody's way. The port is
 * that of RFC 862. */
#define CV_DIAGNOSE_NAME "diagnose@culvert"
#define CV_DIAGNOSE_PORT 7

static inline bool cv_tunnel_name_is_valid(struct cv_slice name)
{
    if (name.len == 0 || name.len > CV_TUNNEL_NAME_MAX || name.data[0] == '-' ||
        name.data[name.len - 1] == '-')
        return false;
    for (size_t i = 0; i < name.len; i++) {
        uint8_t c = name.data[i];
        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-'))
            return false;
    }
    return true;
}

#endif
