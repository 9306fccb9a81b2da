/* SPDX-License-Identifier: MIT
 *
 * What every unit test includes: cmocka with the headers it forgets, and a check on statuses.
 */
#ifndef CV_BASE_TEST_H
#define CV_BASE_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define assert_status(expr, want)                                                                  \
    assert_string_equal(cv_status_name((expr).id), cv_status_name(want))
#define assert_ok(expr) assert_status(expr, CV_OK)

#endif
