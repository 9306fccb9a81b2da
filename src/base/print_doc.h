/* SPDX-License-Identifier: MIT
 *
 * A document that is made from tables in the code: its program prints it, or, with a file's name as
 * argument, checks that the file says the same, which the build's tests do. Main thread.
 */
#ifndef CV_BASE_PRINT_DOC_H
#define CV_BASE_PRINT_DOC_H

#include "base/buf.h"

/* The whole of such a program's main. `write` appends the document. Returns the exit code. */
int cv_doc_main(int argc, char **argv, const char *program,
                struct cv_status (*write)(struct cv_buf *out));

#endif
