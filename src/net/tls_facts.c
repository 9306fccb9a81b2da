/* SPDX-License-Identifier: MIT */
#include "net/tls_facts.h"

#include "net/addr.h"

#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <time.h>

/* A peer chooses what is in its certificate, and it is printed on terminals. */
static void hide_controls(char *text)
{
    for (; *text; text++)
        if (*text < ' ' || *text == 0x7f) /* RFC 2253 form escapes what is above ASCII */
            *text = '?';
}

static void print_name(const X509_NAME *name, char out[CV_TLS_NAME_MAX])
{
    BIO *bio = BIO_new(BIO_s_mem());
    out[0] = '\0';
    if (bio && name && X509_NAME_print_ex(bio, name, 0, XN_FLAG_RFC2253) >= 0) {
        int len = BIO_read(bio, out, CV_TLS_NAME_MAX - 1);
        out[len > 0 ? len : 0] = '\0';
    }
    BIO_free(bio);
    hide_controls(out);
}

static int64_t seconds(const ASN1_TIME *at)
{
    struct tm tm;
    return at && ASN1_TIME_to_tm(at, &tm) == 1 ? (int64_t)timegm(&tm) : 0;
}

static void add_name(char out[CV_TLS_NAME_MAX], const char *text, size_t len)
{
    size_t used = strlen(out);
    (void)snprintf(out + used, CV_TLS_NAME_MAX - used, "%s%.*s", used ? ", " : "", (int)len, text);
}

static void add_address(char out[CV_TLS_NAME_MAX], const ASN1_OCTET_STRING *ip)
{
    struct sockaddr_storage from = {0};
    struct cv_addr addr;
    char text[CV_ADDR_TEXT_LEN];
    socklen_t len = sizeof(struct sockaddr_in);
    const unsigned char *bytes = ASN1_STRING_get0_data(ip);
    if (ASN1_STRING_length(ip) == 4) {
        struct sockaddr_in *v4 = (struct sockaddr_in *)&from;
        v4->sin_family = AF_INET;
        memcpy(&v4->sin_addr, bytes, 4);
    } else if (ASN1_STRING_length(ip) == 16) {
        struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&from;
        v6->sin6_family = AF_INET6;
        memcpy(&v6->sin6_addr, bytes, 16);
        len = sizeof *v6;
    } else {
        return;
    }
    if (!cv_addr_from_sockaddr(&addr, (const struct sockaddr *)&from, len))
        return;
    const char *printed = cv_addr_format_ip(&addr, text);
    add_name(out, printed, strlen(printed));
}

static void print_names(const X509 *cert, char out[CV_TLS_NAME_MAX])
{
    GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
    out[0] = '\0';
    for (int i = 0; names && i < sk_GENERAL_NAME_num(names); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
        if (name->type == GEN_DNS)
            add_name(out, (const char *)ASN1_STRING_get0_data(name->d.dNSName),
                     (size_t)ASN1_STRING_length(name->d.dNSName));
        else if (name->type == GEN_IPADD)
            add_address(out, name->d.iPAddress);
    }
    GENERAL_NAMES_free(names);
    for (char *at = out; *at; at++)
        if (*at < ' ' || *at >= 0x7f)
            *at = '?';
}

/* Called for each certificate of the chain, and once more for each fault found; the verdict is not
 * changed. */
static int on_verify(int is_good, X509_STORE_CTX *store)
{
    const SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
    struct cv_tls_facts *facts = ssl ? SSL_get_app_data(ssl) : NULL;
    const X509 *cert = X509_STORE_CTX_get0_cert(store);
    if (!facts || !cert || facts->has_certificate)
        return is_good;
    facts->has_certificate = true;
    print_name(X509_get_subject_name(cert), facts->subject);
    print_name(X509_get_issuer_name(cert), facts->issuer);
    print_names(cert, facts->names);
    facts->not_before = seconds(X509_get0_notBefore(cert));
    facts->not_after = seconds(X509_get0_notAfter(cert));
    return is_good;
}

void cv_tls_facts_begin(struct cv_tls_facts *facts, SSL *ssl)
{
    *facts = (struct cv_tls_facts){0};
    SSL_set_app_data(ssl, facts);
    SSL_set_verify(ssl, SSL_get_verify_mode(ssl), on_verify);
}

void cv_tls_facts_end(struct cv_tls_facts *facts, const SSL *ssl)
{
    facts->version = SSL_get_version(ssl);
    facts->cipher = SSL_get_cipher_name(ssl);
}
