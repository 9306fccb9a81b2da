/* SPDX-License-Identifier: MIT */
#include "net/net.h"

#include <curl/curl.h>
#include <openssl/ssl.h>
#include <signal.h>

struct cv_status cv_net_init(void)
{
    /* OpenSSL writes to sockets without MSG_NOSIGNAL. */
    if (signal(SIGPIPE, SIG_IGN) == SIG_ERR)
        return cv_status(CV_INTERNAL);
    if (OPENSSL_init_ssl(0, NULL) != 1)
        return cv_status(CV_INTERNAL);
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        return cv_status(CV_NO_MEMORY);
    return cv_ok();
}

void cv_net_done(void)
{
    curl_global_cleanup();
}
