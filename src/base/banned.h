/* SPDX-License-Identifier: MIT
 *
 * Functions nobody here may call: unbounded copies, global state, formats that fail silently.
 * Force-included in every file of ours by the build.
 */
#ifndef CV_BASE_BANNED_H
#define CV_BASE_BANNED_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#pragma GCC poison strcpy strcat strncpy strncat strtok atoi atol tmpnam mktemp

#endif
