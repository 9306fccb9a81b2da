/* SPDX-License-Identifier: MIT */
#include "config/profiles.h"

#include <string.h>

/* The same settings in each, so that one replaces the other without a rest.
 *
 * stable: a failure is news, so it is found and told soon, and little is kept for a link that is
 * lost. unstable: links are lost every few minutes and come back by themselves; much is kept, for
 * long, and a second link stands in. low-bandwidth: bytes are dear, CPU is not, and an answer may
 * stand behind megabytes. */
static const struct cv_profile profiles[] = {
    {"stable-network",
     "A wired network or a data centre: failures are found soon and told after ten tries.",
     {
         {"reconnect.initial", "500ms"},
         {"reconnect.max", "30s"},
         {"reconnect.max_attempts", "10"},
         {"connect.relay_timeout", "5s"},
         {"ws.ping_interval", "30s"},
         {"ws.pong_timeout", "10s"},
         {"ssh.keepalive_interval", "60s"},
         {"ssh.window", "2MiB"},
         {"ssh.max_channels", "50"},
         {"ssh.compression", "false"},
         {"links", "1"},
         {"link.replay_bytes", "4MiB"},
         {"link.resume_window", "30s"},
         {"forward.queue_size", "100"},
     }},
    {"unstable-network",
     "Wi-Fi, mobile, trains: tries never end, lost links are kept long, a second one stands in.",
     {
         {"reconnect.initial", "250ms"},
         {"reconnect.max", "10s"},
         {"reconnect.max_attempts", "0"},
         {"connect.relay_timeout", "20s"},
         {"ws.ping_interval", "10s"},
         {"ws.pong_timeout", "10s"},
         {"ssh.keepalive_interval", "30s"},
         {"ssh.window", "2MiB"},
         {"ssh.max_channels", "20"},
         {"ssh.compression", "false"},
         {"links", "2"},
         {"link.replay_bytes", "16MiB"},
         {"link.resume_window", "5m"},
         {"forward.queue_size", "400"},
     }},
    {"low-bandwidth",
     "A slow or metered line: compressed, few signs of life, small windows, patience.",
     {
         {"reconnect.initial", "1s"},
         {"reconnect.max", "60s"},
         {"reconnect.max_attempts", "0"},
         {"connect.relay_timeout", "30s"},
         {"ws.ping_interval", "60s"},
         {"ws.pong_timeout", "30s"},
         {"ssh.keepalive_interval", "2m"},
         {"ssh.window", "256KiB"},
         {"ssh.max_channels", "10"},
         {"ssh.compression", "true"},
         {"links", "1"},
         {"link.replay_bytes", "1MiB"},
         {"link.resume_window", "2m"},
         {"forward.queue_size", "50"},
     }},
};

const struct cv_profile *cv_profiles(size_t *count)
{
    *count = sizeof profiles / sizeof profiles[0];
    return profiles;
}

const struct cv_profile *cv_profile_find(const char *name)
{
    for (size_t i = 0; i < sizeof profiles / sizeof profiles[0]; i++)
        if (strcmp(profiles[i].name, name) == 0)
            return &profiles[i];
    return NULL;
}
