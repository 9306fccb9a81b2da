/* SPDX-License-Identifier: MIT */
#include "net/net.h"

#include <curl/curl.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <uv.h>

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

const char *cv_net_library(unsigned index, const char **version)
{
    switch (index) {
    case 0:
        *version = OpenSSL_version(OPENSSL_VERSION_STRING);
        return "openssl";
    case 1:
        *version = uv_version_string();
        return "libuv";
    case 2:
        *version = curl_version_info(CURLVERSION_NOW)->version;
        return "libcurl";
    default:
        *version = NULL;
        return NULL;
    }
}
