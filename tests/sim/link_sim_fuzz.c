/* SPDX-License-Identifier: MIT
 *
 * The input is the schedule of a simulated conversation over paths that die (sim.h), so that a
 * fuzzer chooses when and how; what must hold is checked there.
 */
#include "base/fuzz.h"
#include "sim.h"

#include "proto/ssh/host_key.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sim_schedule schedule;
    struct cv_ssh_host_key *key;
    cv_fuzz_must(cv_is_ok(cv_ssh_host_key_generate(&key)));
    sim_schedule_read(data, size, &schedule);
    (void)sim_run(&schedule, key);
    cv_ssh_host_key_free(&key);
    return 0;
}
