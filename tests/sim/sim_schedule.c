/* SPDX-License-Identifier: MIT */
#include "sim.h"

enum { HANDSHAKE_BYTES = 3000 };

struct source {
    const uint8_t *data;
    size_t len;
};

static uint32_t take(struct source *from, uint32_t below)
{
    uint32_t value = 0;
    for (int i = 0; i < 3 && below >> (8 * i); i++) {
        value = value << 8 | (from->len ? *from->data : 0);
        from->data += from->len > 0;
        from->len -= from->len > 0;
    }
    return value % below;
}

/* Small numbers are as likely as large ones. */
static uint32_t take_scaled(struct source *from, unsigned bits)
{
    unsigned size = take(from, bits + 1);
    return size ? take(from, 1U << size) : 0;
}

static uint64_t take_learning(struct source *from)
{
    static const uint64_t at_ms[] = {0, 1, 20, 700, 6000, 50000, SIM_NEVER, SIM_NEVER};
    return at_ms[take(from, sizeof at_ms / sizeof *at_ms)];
}

/* Most first cuts come behind the handshake: before it there is nothing to resume. */
static void take_path(struct source *from, struct sim_path_options *path, bool is_first,
                      bool has_cut)
{
    static const uint32_t delays_ms[] = {0, 1, 5, 30, 120, 400};
    *path = (struct sim_path_options){
        .delay_ms = delays_ms[take(from, 6)],
        .segment = 1 + take_scaled(from, 16),
        .socket_bytes = 4096 + take_scaled(from, 17),
        .cut = {.offset = SIM_NEVER},
    };
    if (path->segment < 64)
        path->segment = 64; /* every event costs processor time */
    if (!has_cut)
        return;
    path->cut.offset = take_scaled(from, 17);
    if (is_first && take(from, 8))
        path->cut.offset += HANDSHAKE_BYTES;
    path->cut.way = (uint8_t)take(from, SIM_SIDES);
    path->cut.is_one_way = take(from, 4) == 1;
    for (int side = 0; side < SIM_SIDES; side++) {
        path->cut.learns_ms[side] = take_learning(from);
        path->cut.is_eof[side] = take(from, 2);
    }
}

void sim_schedule_read(const uint8_t *data, size_t len, struct sim_schedule *schedule)
{
    struct source from = {data, len};
    *schedule = (struct sim_schedule){
        .path_count = 1 + take(&from, SIM_CUTS_MAX),
        .event_count = take(&from, SIM_EVENTS_MAX + 1),
        .streams = 1 + take(&from, SIM_STREAMS_MAX),
        .bytes = {take_scaled(&from, 17), take_scaled(&from, 17)},
        .consume_ms = take_scaled(&from, 9),
        .redial_ms = take_scaled(&from, 12),
        .dial_timeout_ms = 2000 + take_scaled(&from, 13),
        .replay_bytes = 65536 + take_scaled(&from, 18),
        .window_bytes = 32768 + take_scaled(&from, 17),
        .rekey_bytes = 16384 + take_scaled(&from, 20),
        .never_redials = take(&from, 16) == 1,
        .closer = (enum sim_side)take(&from, SIM_SIDES),
    };
    for (unsigned i = 0; i < schedule->event_count; i++) {
        schedule->events[i].kind = (enum sim_event_kind)take(&from, SIM_EVENT_COUNT);
        schedule->events[i].after_ms = take_scaled(&from, 14);
    }
    for (unsigned i = 0; i < schedule->path_count; i++)
        take_path(&from, &schedule->paths[i], i == 0, i + 1 < schedule->path_count);
    schedule->replay_max_bytes = take_scaled(&from, 21);
    schedule->window_max_bytes = take_scaled(&from, 20);
    schedule->growth_bytes = take_scaled(&from, 21);
}
