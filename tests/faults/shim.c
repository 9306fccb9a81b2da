/* SPDX-License-Identifier: MIT
 *
 * Stands between a program and its C library (LD_PRELOAD) and makes calls fail while the program
 * runs: short reads and writes, errors, refused memory. What fails, how often and how many times is
 * in a page that the test maps as well (FAULTS_FILE names its file): a change holds at once, in all
 * threads. faults.py has the same layout. Without FAULTS_FILE every call goes through.
 *
 * One kind per line of `enum kind`; a call on a descriptor is told apart by what it leads to, since
 * libuv's event descriptors are not to fail: no kernel gives short writes there.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum kind {
    SOCKET_READ,
    SOCKET_WRITE,
    FILE_READ,
    FILE_WRITE, /* regular files and character devices */
    PIPE_WRITE,
    ACCEPT,
    SOCKET,
    CONNECT,
    OPEN, /* for writing or reading, not of the loader */
    EPOLL_WAIT,
    EPOLL_CTL,
    EVENTFD,
    RANDOM,
    MEMORY,     /* asked for by the program's own code */
    ANY_MEMORY, /* asked for by its libraries as well */
    SYNC,
    RENAME,
    LINK,
    THREAD,
    KINDS
};

enum { ALWAYS = 1 << 20, IOV_KEPT = 8, EARLY_BYTES = 4096 };

/* All words have 64 bits, so that struct.pack_into writes each in one go. */
struct rule {
    _Atomic uint64_t error;        /* errno; 0: no failures */
    _Atomic uint64_t error_chance; /* of ALWAYS */
    _Atomic uint64_t error_skip;   /* so many go through first */
    _Atomic uint64_t error_left;   /* how many times more */
    _Atomic uint64_t short_max;    /* transfers of 1 to this many bytes; 0: as asked */
    _Atomic uint64_t short_chance;
    _Atomic uint64_t seen; /* calls of this kind */
    _Atomic uint64_t hits; /* of them changed */
};

struct control {
    _Atomic uint64_t seed;
    _Atomic uint64_t realtime_offset_ms; /* two's complement */
    struct rule rules[KINDS];
};

static struct control *control;
static uintptr_t own_begin, own_end;
static bool is_until_exit;
static _Atomic bool has_ended;
static _Thread_local uint64_t thread_state;

static void *real(const char *name)
{
    return dlsym(RTLD_NEXT, name);
}

/* Asked for at the first call, which may come before the constructor. */
#define REAL(name)                                                                                 \
    static _Atomic(__typeof__(&name)) found;                                                       \
    if (!found)                                                                                    \
        found = (__typeof__(&name))real(#name);                                                    \
    __typeof__(&name) go = found

static int find_own(struct dl_phdr_info *info, size_t size, void *arg)
{
    (void)size;
    (void)arg;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];
        if (part->p_type == PT_LOAD && (part->p_flags & PF_X)) {
            own_begin = info->dlpi_addr + part->p_vaddr;
            own_end = own_begin + part->p_memsz;
        }
    }
    return 1; /* the program itself comes first */
}

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("FAULTS_FILE");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    (void)dl_iterate_phdr(find_own, NULL);
    void *page = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    (void)close(fd);
    if (page != MAP_FAILED)
        control = page;
    is_until_exit = getenv("FAULTS_UNTIL_EXIT") != NULL;
}

/* Handlers run in reverse order: one that is registered while main() runs comes before the
   program's destructors. */
static void end(void)
{
    atomic_store(&has_ended, true);
}

/* xorshift64* from the seed of the page and the thread. */
static uint64_t draw(void)
{
    if (thread_state == 0)
        thread_state = (atomic_load(&control->seed) ^ (uint64_t)pthread_self()) | 1;
    thread_state ^= thread_state >> 12;
    thread_state ^= thread_state << 25;
    thread_state ^= thread_state >> 27;
    return thread_state * 2685821657736338717u >> 24;
}

/* Counts down, not below 0; whether there was something to take. */
static bool take(_Atomic uint64_t *count)
{
    uint64_t left = atomic_load(count);
    do
        if (left == 0)
            return false;
    while (!atomic_compare_exchange_weak(count, &left, left - 1));
    return true;
}

/* Whether this call fails; errno says how. */
static bool fails(enum kind kind)
{
    if (!control)
        return false;
    struct rule *rule = &control->rules[kind];
    atomic_fetch_add(&rule->seen, 1);
    uint64_t error = atomic_load(&rule->error);
    if (!error || draw() % ALWAYS >= atomic_load(&rule->error_chance))
        return false;
    if (take(&rule->error_skip) || !take(&rule->error_left))
        return false;
    atomic_fetch_add(&rule->hits, 1);
    errno = (int)error;
    return true;
}

static size_t shorten(enum kind kind, size_t len)
{
    if (!control || len < 2)
        return len;
    struct rule *rule = &control->rules[kind];
    uint64_t max = atomic_load(&rule->short_max);
    if (!max || draw() % ALWAYS >= atomic_load(&rule->short_chance))
        return len;
    uint64_t want = 1 + draw() % max;
    if (want >= len)
        return len;
    atomic_fetch_add(&rule->hits, 1);
    return (size_t)want;
}

/* KINDS: this descriptor is left alone. */
static enum kind kind_of(int fd, bool is_write)
{
    struct stat st;
    int saved = errno;
    enum kind kind = KINDS;
    if (control && fstat(fd, &st) == 0) {
        if (S_ISSOCK(st.st_mode))
            kind = is_write ? SOCKET_WRITE : SOCKET_READ;
        else if (S_ISREG(st.st_mode) || S_ISCHR(st.st_mode))
            kind = is_write ? FILE_WRITE : FILE_READ;
        else if (S_ISFIFO(st.st_mode) && is_write)
            kind = PIPE_WRITE;
    }
    errno = saved;
    return kind;
}

/* Every transfer: the kind decides over failure and length before the real call is made. */
#define TRANSFER(is_write)                                                                         \
    enum kind kind = kind_of(fd, is_write);                                                        \
    if (kind != KINDS) {                                                                           \
        if (fails(kind))                                                                           \
            return -1;                                                                             \
        len = shorten(kind, len);                                                                  \
    }

ssize_t read(int fd, void *buf, size_t len)
{
    REAL(read);
    TRANSFER(false)
    return go(fd, buf, len);
}

ssize_t write(int fd, const void *buf, size_t len)
{
    REAL(write);
    TRANSFER(true)
    return go(fd, buf, len);
}

ssize_t recv(int fd, void *buf, size_t len, int flags)
{
    REAL(recv);
    TRANSFER(false)
    return go(fd, buf, len, flags);
}

ssize_t recvfrom(int fd, void *buf, size_t len, int flags, struct sockaddr *from, socklen_t *size)
{
    REAL(recvfrom);
    TRANSFER(false)
    return go(fd, buf, len, flags, from, size);
}

ssize_t send(int fd, const void *buf, size_t len, int flags)
{
    REAL(send);
    TRANSFER(true)
    return go(fd, buf, len, flags);
}

ssize_t sendto(int fd, const void *buf, size_t len, int flags, const struct sockaddr *to,
               socklen_t size)
{
    REAL(sendto);
    TRANSFER(true)
    return go(fd, buf, len, flags, to, size);
}

/* The first `len` bytes of what the parts hold; how many parts that takes. */
static int cut(const struct iovec *parts, int count, size_t len, struct iovec *out)
{
    int used = 0;
    for (; used < count && used < IOV_KEPT && len; used++) {
        out[used] = parts[used];
        if (out[used].iov_len > len)
            out[used].iov_len = len;
        len -= out[used].iov_len;
    }
    return used;
}

static size_t total(const struct iovec *parts, int count)
{
    size_t sum = 0;
    for (int i = 0; i < count; i++)
        sum += parts[i].iov_len;
    return sum;
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    REAL(writev);
    struct iovec some[IOV_KEPT];
    size_t whole = total(parts, count), len = whole;
    TRANSFER(true)
    return len == whole ? go(fd, parts, count) : go(fd, some, cut(parts, count, len, some));
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    REAL(sendmsg);
    struct iovec some[IOV_KEPT];
    size_t whole = total(message->msg_iov, (int)message->msg_iovlen), len = whole;
    TRANSFER(true)
    struct msghdr shorter = *message;
    if (len != whole) {
        shorter.msg_iovlen = (size_t)cut(message->msg_iov, (int)message->msg_iovlen, len, some);
        shorter.msg_iov = some;
    }
    return go(fd, &shorter, flags);
}

ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
    REAL(recvmsg);
    return kind_of(fd, false) == SOCKET_READ && fails(SOCKET_READ) ? -1 : go(fd, message, flags);
}

/* A connection that failed is gone (accept(2)); one that found no descriptor waits on. */
int accept4(int fd, struct sockaddr *from, socklen_t *size, int flags)
{
    REAL(accept4);
    if (!fails(ACCEPT))
        return go(fd, from, size, flags);
    int why = errno;
    if (why == ECONNABORTED) {
        int lost = go(fd, from, size, flags);
        if (lost < 0)
            return -1;
        (void)close(lost);
    }
    errno = why;
    return -1;
}

int socket(int domain, int type, int protocol)
{
    REAL(socket);
    return fails(SOCKET) ? -1 : go(domain, type, protocol);
}

int connect(int fd, const struct sockaddr *to, socklen_t size)
{
    REAL(connect);
    return fails(CONNECT) ? -1 : go(fd, to, size);
}

int open(const char *path, int flags, ...)
{
    REAL(open);
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    return fails(OPEN) ? -1 : go(path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    REAL(open64);
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    return fails(OPEN) ? -1 : go(path, flags, mode);
}

int epoll_wait(int fd, struct epoll_event *events, int max, int timeout)
{
    REAL(epoll_wait);
    return fails(EPOLL_WAIT) ? -1 : go(fd, events, max, timeout);
}

int epoll_pwait(int fd, struct epoll_event *events, int max, int timeout, const sigset_t *set)
{
    REAL(epoll_pwait);
    return fails(EPOLL_WAIT) ? -1 : go(fd, events, max, timeout, set);
}

int epoll_ctl(int fd, int op, int target, struct epoll_event *event)
{
    REAL(epoll_ctl);
    return op == EPOLL_CTL_ADD && fails(EPOLL_CTL) ? -1 : go(fd, op, target, event);
}

int eventfd(unsigned value, int flags)
{
    REAL(eventfd);
    return fails(EVENTFD) ? -1 : go(value, flags);
}

ssize_t getrandom(void *buf, size_t len, unsigned flags)
{
    REAL(getrandom);
    return fails(RANDOM) ? -1 : go(buf, shorten(RANDOM, len), flags);
}

int getentropy(void *buf, size_t len)
{
    REAL(getentropy);
    return fails(RANDOM) && errno != EINTR ? -1 : go(buf, len); /* the C library asks again */
}

int fsync(int fd)
{
    REAL(fsync);
    return fails(SYNC) ? -1 : go(fd);
}

int rename(const char *from, const char *to)
{
    REAL(rename);
    return fails(RENAME) ? -1 : go(from, to);
}

int link(const char *from, const char *to)
{
    REAL(link);
    return fails(LINK) ? -1 : go(from, to);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *), void *arg)
{
    REAL(pthread_create);
    return fails(THREAD) ? errno : go(thread, attr, run, arg);
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    REAL(clock_gettime);
    int result = go(clock, now);
    if (control && result == 0 && clock == CLOCK_REALTIME)
        now->tv_sec += (int64_t)atomic_load(&control->realtime_offset_ms) / 1000;
    return result;
}

time_t time(time_t *out)
{
    struct timespec now = {0};
    (void)clock_gettime(CLOCK_REALTIME, &now);
    if (out)
        *out = now.tv_sec;
    return now.tv_sec;
}

/* --- memory --- */

static bool is_refused(const void *caller)
{
    if (!control || atomic_load(&has_ended))
        return false;
    uintptr_t at = (uintptr_t)caller;
    bool is_own = at >= own_begin && at < own_end;
    static atomic_flag is_registered = ATOMIC_FLAG_INIT;
    if (is_until_exit && is_own && !atomic_flag_test_and_set(&is_registered))
        (void)atexit(end);
    return (is_own && fails(MEMORY)) || fails(ANY_MEMORY);
}

/* dlsym itself may ask for memory while we ask it for malloc: that comes from here, and stays. */
static _Alignas(16) char early[EARLY_BYTES];
static size_t early_used;
static bool is_looking;

static void *give_early(size_t len)
{
    len = (len + 15) & ~(size_t)15;
    if (len > EARLY_BYTES - early_used)
        abort();
    early_used += len;
    return early + early_used - len;
}

static bool is_early(const void *at)
{
    return (const char *)at >= early && (const char *)at < early + EARLY_BYTES;
}

static void *(*real_malloc)(size_t);
static void *(*real_calloc)(size_t, size_t);
static void *(*real_realloc)(void *, size_t);
static void (*real_free)(void *);

static void look(void)
{
    is_looking = true;
    real_calloc = (void *(*)(size_t, size_t))real("calloc");
    real_realloc = (void *(*)(void *, size_t))real("realloc");
    real_free = (void (*)(void *))real("free");
    real_malloc = (void *(*)(size_t))real("malloc");
    is_looking = false;
}

void *malloc(size_t len)
{
    if (!real_malloc && is_looking)
        return give_early(len);
    if (!real_malloc)
        look();
    return is_refused(__builtin_return_address(0)) ? NULL : real_malloc(len);
}

void *calloc(size_t count, size_t len)
{
    if (!real_malloc && is_looking)
        return give_early(count * len);
    if (!real_malloc)
        look();
    return is_refused(__builtin_return_address(0)) ? NULL : real_calloc(count, len);
}

void *realloc(void *old, size_t len)
{
    if (!real_malloc)
        look();
    if (is_early(old)) {
        void *fresh = malloc(len);
        if (fresh)
            memcpy(fresh, old, len < 64 ? len : 64);
        return fresh;
    }
    return is_refused(__builtin_return_address(0)) ? NULL : real_realloc(old, len);
}

void free(void *at)
{
    if (!at || is_early(at))
        return;
    if (!real_malloc)
        look();
    real_free(at);
}
