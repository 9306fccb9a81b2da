/* SPDX-License-Identifier: MIT
 *
 * A link that loses its socket, in virtual time.
 *
 *   link_sim_test offsets STRIDE         the socket is lost at every STRIDE-th byte offset in turn
 *   link_sim_test random COUNT [SEED]    schedules from COUNT seeds, from SEED on
 *
 * A seed is printed before its schedule can fail: `random 1 SEED` plays it again.
 */
#include "sim.h"

#include "proto/ssh/host_key.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { SCHEDULE_BYTES = 256, FIRST_CUT = 6000 };

struct tally {
    unsigned runs, carried, resumes, cuts;
};

static void say(const char *text, int code)
{
    (void)fputs(text, stderr);
    exit(code);
}

static struct sim_result play(const struct sim_schedule *schedule,
                              const struct cv_ssh_host_key *key, struct tally *tally)
{
    struct sim_result result = sim_run(schedule, key);
    tally->runs++;
    tally->carried += result.was_carried;
    tally->resumes += result.resumes;
    tally->cuts += result.cuts;
    return result;
}

static void print(const char *what, const struct tally *tally)
{
    (void)printf("%s: %u runs, %u sockets lost, %u resumes, %u carried every byte\n", what,
                 tally->runs, tally->cuts, tally->resumes, tally->carried);
    (void)fflush(stdout);
}

/* ---- at every byte ---- */

static struct sim_schedule small_schedule(void)
{
    struct sim_schedule schedule = {
        .path_count = 4,
        .streams = 2,
        .bytes = {9000, 11000},
        .redial_ms = 10,
        .dial_timeout_ms = 3000,
        .replay_bytes = 65536,
        .window_bytes = 32768,
        .rekey_bytes = 16384,
    };
    for (unsigned i = 0; i < schedule.path_count; i++)
        schedule.paths[i] = (struct sim_path_options){
            .delay_ms = 5, .segment = 1400, .socket_bytes = 16384, .cut = {.offset = SIM_NEVER}};
    return schedule;
}

/* How each end learns that the socket is lost, in turn. */
static struct sim_cut cut_at(unsigned way, uint64_t offset)
{
    static const uint64_t learns_ms[][SIM_SIDES] = {
        {0, 0}, {SIM_NEVER, 0}, {0, SIM_NEVER}, {SIM_NEVER, SIM_NEVER}, {40, 3}, {3, 20000}};
    size_t mixed = (size_t)(offset * 2654435761U >> 12);
    size_t how = mixed % (sizeof learns_ms / sizeof *learns_ms);
    return (struct sim_cut){.offset = offset,
                            .way = (uint8_t)way,
                            .is_one_way = how == 3 && mixed % 4 == 1,
                            .is_eof = {mixed % 5 == 0, mixed % 7 == 0},
                            .learns_ms = {learns_ms[how][0], learns_ms[how][1]}};
}

/* Path number `lost` loses its socket at each offset in turn; those before it at FIRST_CUT, or, in
 * a row, at the same offset as the last. */
static void every_offset(const struct cv_ssh_host_key *key, unsigned lost, bool is_same,
                         unsigned stride, const char *what)
{
    struct tally tally = {0};
    for (unsigned way = 0; way < SIM_SIDES; way++) {
        for (uint64_t offset = 0;; offset += stride) {
            struct sim_schedule schedule = small_schedule();
            for (unsigned i = 0; i < lost; i++)
                schedule.paths[i].cut = cut_at(i % 2, i && is_same ? offset : FIRST_CUT);
            schedule.paths[lost].cut = cut_at(way, offset);
            struct sim_result result = play(&schedule, key, &tally);
            if (result.cuts <= lost)
                break; /* so many bytes never went there */
            if (!result.was_carried && result.was_up[SIM_AGENT] && result.was_up[SIM_RELAY])
                say("a link that was up has ended\n", 1);
        }
    }
    print(what, &tally);
}

static void every_kind(const struct cv_ssh_host_key *key, unsigned stride)
{
    every_offset(key, 0, false, stride, "lost in the conversation");
    every_offset(key, 1, false, stride, "lost in the resume and behind it");
    every_offset(key, 2, true, stride, "lost in two resumes in a row");
}

/* ---- at random ---- */

/* xorshift64*, from a seed that is spread first (any seed will do, 0 too). */
static void fill(uint8_t *bytes, size_t len, uint64_t seed)
{
    uint64_t x = (seed + 1) * 0x9e3779b97f4a7c15U;
    for (size_t i = 0; i < len; i++) {
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        bytes[i] = (uint8_t)(x * 0x2545f4914f6cdd1dU >> 56);
    }
}

static void at_random(const struct cv_ssh_host_key *key, unsigned count, uint64_t seed)
{
    struct tally tally = {0};
    (void)printf("seeds from %" PRIu64 "\n", seed);
    for (unsigned i = 0; i < count; i++) {
        uint8_t bytes[SCHEDULE_BYTES];
        struct sim_schedule schedule;
        char line[64];
        fill(bytes, sizeof bytes, seed + i);
        sim_schedule_read(bytes, sizeof bytes, &schedule);
        int len = snprintf(line, sizeof line, "\rseed %" PRIu64 " ", seed + i);
        if (count == 1 || i % 64 == 0 || !isatty(STDERR_FILENO))
            (void)!write(STDERR_FILENO, line, (size_t)len);
        struct sim_result result = play(&schedule, key, &tally);
        if (count == 1)
            (void)printf("%u resumes, %u cuts, carried %d, %" PRIu64 " ms\n", result.resumes,
                         result.cuts, result.was_carried, result.spent_ms);
    }
    print("random schedules", &tally);
}

int main(int argc, char **argv)
{
    struct cv_ssh_host_key *key;
    if (argc < 3 || !cv_is_ok(cv_ssh_host_key_generate(&key)))
        say("usage: link_sim_test offsets STRIDE | random COUNT [SEED]\n", 2);
    unsigned number = (unsigned)strtoul(argv[2], NULL, 10);
    if (strcmp(argv[1], "offsets") == 0 && number)
        every_kind(key, number);
    else
        at_random(key, number, argc > 3 ? strtoull(argv[3], NULL, 10) : (uint64_t)time(NULL) << 20);
    cv_ssh_host_key_free(&key);
    return 0;
}
