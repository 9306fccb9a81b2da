/* SPDX-License-Identifier: MIT
 *
 * process_*, with the names and meanings that all Prometheus clients share
 * (prometheus.io/docs/instrumenting/writing_clientlibs, "Process metrics").
 */
#include "telemetry/metrics.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* An address space of 2^64 bytes; the address sanitizer takes more than 2^32 pages. */
#define PAGES_MAX (UINT64_MAX / 4096)

/* proc(5): virtual and resident size in pages stand first in statm. */
struct cv_process_memory cv_process_memory(void)
{
    char text[128];
    uint64_t virtual_pages, resident_pages;
    long page = sysconf(_SC_PAGESIZE);
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return (struct cv_process_memory){0};
    ssize_t len = read(fd, text, sizeof text - 1);
    (void)close(fd);
    text[len > 0 ? len : 0] = '\0';
    struct cv_slice rest = cv_slice_str(text);
    if (page <= 0 || !cv_slice_to_u64(cv_slice_split(&rest, ' '), PAGES_MAX, &virtual_pages) ||
        !cv_slice_to_u64(cv_slice_split(&rest, ' '), PAGES_MAX, &resident_pages))
        return (struct cv_process_memory){0};
    return (struct cv_process_memory){virtual_pages * (uint64_t)page,
                                      resident_pages * (uint64_t)page};
}

/* Since Linux 6.2 the folder's size says how many there are; before it is 0. */
static double count_fds(void)
{
    struct stat stat_buf;
    if (stat("/proc/self/fd", &stat_buf) == 0 && stat_buf.st_size > 0)
        return (double)stat_buf.st_size;
    DIR *folder = opendir("/proc/self/fd");
    double count = 0;
    if (!folder)
        return 0;
    while (readdir(folder))
        count++;
    (void)closedir(folder);
    return count > 3 ? count - 3 : 0; /* ".", ".." and the folder itself */
}

static double seconds(const struct timeval *time)
{
    return (double)time->tv_sec + (double)time->tv_usec * 1e-6;
}

void cv_snapshot_process(struct cv_metrics_snapshot *snapshot)
{
    struct rusage usage;
    struct rlimit limit;
    struct cv_process_memory memory = cv_process_memory();
    cv_snapshot_set(snapshot, CV_CELL(PROCESS_VIRTUAL, 0, 0), (double)memory.virtual_bytes);
    cv_snapshot_set(snapshot, CV_CELL(PROCESS_RESIDENT, 0, 0), (double)memory.resident_bytes);
    if (getrusage(RUSAGE_SELF, &usage) == 0)
        cv_snapshot_set(snapshot, CV_CELL(PROCESS_CPU, 0, 0),
                        seconds(&usage.ru_utime) + seconds(&usage.ru_stime));
    cv_snapshot_set(snapshot, CV_CELL(PROCESS_OPEN_FDS, 0, 0), count_fds());
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
        cv_snapshot_set(snapshot, CV_CELL(PROCESS_MAX_FDS, 0, 0), (double)limit.rlim_cur);
}
