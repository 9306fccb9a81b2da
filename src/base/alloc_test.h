/* SPDX-License-Identifier: MIT
 *
 * Memory that is refused when a test says so. A test that depends on test_alloc_dep has malloc and
 * its kin replaced by the linker (--wrap) in all code of ours that it links; libraries are reached
 * through their own hooks, with the cv_test_* functions below.
 *
 *     size_t n = 0;
 *     do {
 *         cv_test_alloc_fail_at(++n);
 *         … the whole conversation, and its teardown …
 *     } while (cv_test_alloc_stop());
 *
 * Any thread; there is one count for the process.
 */
#ifndef CV_BASE_ALLOC_TEST_H
#define CV_BASE_ALLOC_TEST_H

#include <stdbool.h>
#include <stddef.h>

/* From now on the nth request for memory is refused, all others are granted; n is at least 1. */
void cv_test_alloc_fail_at(size_t n);

/* No more is refused. True when one was since cv_test_alloc_fail_at. */
bool cv_test_alloc_stop(void);

/* Whether the one that was to be refused has been. */
bool cv_test_alloc_has_failed(void);

/* For cv_json_init_with and the like: counted and refused as our own requests are. */
void *cv_test_malloc(size_t len);
void cv_test_free(void *at);

#endif
