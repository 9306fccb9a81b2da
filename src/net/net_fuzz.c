/* SPDX-License-Identifier: MIT
 *
 * Text that becomes an address: peers' and operators' host:port, CIDR blocks, proxy URLs and
 * NO_PROXY lists. The first byte chooses. What is accepted is printed and read back as the same.
 */
#include "base/fuzz.h"
#include "net/addr.h"
#include "net/proxy.h"

static void fuzz_addr(struct cv_slice text)
{
    struct cv_addr addr, again;
    char printed[CV_ADDR_TEXT_LEN];
    if (!cv_addr_from_ip(&addr, text, 443))
        return;
    cv_fuzz_must(cv_addr_port(&addr) == 443 && addr.len > 0);
    cv_addr_format_ip(&addr, printed);
    cv_fuzz_must(cv_addr_from_ip(&again, cv_slice_str(printed), 443));
    cv_fuzz_must(cv_addr_equal_ip(&addr, &again));
}

static void fuzz_cidr(struct cv_slice text)
{
    struct cv_cidr cidr;
    struct cv_addr addr;
    struct cv_slice rest = text;
    if (!cv_cidr_parse(&cidr, text))
        return;
    cv_fuzz_must(cidr.bits <= (cidr.family == AF_INET ? 32 : 128));
    cv_fuzz_must(cv_addr_from_ip(&addr, cv_slice_split(&rest, '/'), 0));
    cv_fuzz_must(cv_cidr_has(&cidr, &addr));
}

static void fuzz_hostport(struct cv_slice text)
{
    char host[CV_HOST_LEN] = "untouched";
    uint16_t port = 0;
    struct cv_error error = {0};
    if (!cv_is_ok(cv_hostport_parse(text, 80, host, &port, &error))) {
        cv_fuzz_must(strcmp(host, "untouched") == 0 && port == 0);
        return;
    }
    cv_fuzz_must(port > 0 && host[0] != '\0');
    for (const char *at = host; *at; at++)
        cv_fuzz_must(strchr("[]/@ ,\"'", *at) == NULL && (unsigned char)*at > ' ' && *at != 0x7f);
    (void)cv_host_is_loopback(host);
}

static const char *no_env(const char *name)
{
    (void)name;
    return NULL;
}

static void fuzz_proxy(char *text)
{
    struct cv_proxy proxy;
    struct cv_error error = {0};
    char *list = strchr(text, '\n');
    if (list)
        *list++ = '\0';
    struct cv_proxy_settings settings = {.url = text, .no_proxy = list, .get_env = no_env};
    struct cv_status status =
        cv_proxy_choose(&settings, true, "relay.example.com", 443, &proxy, &error);
    cv_fuzz_must(cv_is_ok(status) || status.id == CV_CONFIG);
    if (cv_is_ok(status) && proxy.host[0])
        cv_fuzz_must(proxy.port > 0 && !strpbrk(proxy.host, "\r\n @/"));
    if (cv_is_ok(status))
        cv_fuzz_must(!strpbrk(proxy.userinfo, "\r\n"));
    if (list)
        (void)cv_proxy_is_excluded(list, "::1", 443);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    struct cv_slice text = cv_slice(data + 1, size - 1);
    char *string = strndup((const char *)text.data, text.len);
    if (!string)
        return 0;
    switch (data[0] % 4) {
    case 0:
        fuzz_addr(text);
        break;
    case 1:
        fuzz_cidr(text);
        break;
    case 2:
        fuzz_hostport(text);
        break;
    default:
        fuzz_proxy(string);
    }
    free(string);
    return 0;
}
