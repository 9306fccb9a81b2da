/* SPDX-License-Identifier: MIT
 *
 * Sockets on 127.0.0.1 for the load programs. Faults end the process.
 */
#ifndef CV_TESTS_LOAD_SOCKET_H
#define CV_TESTS_LOAD_SOCKET_H

#include <stdint.h>
#include <stdnoreturn.h>

noreturn void load_die(const char *what);
uint64_t load_now_ns(void); /* CLOCK_MONOTONIC */

int load_listen(uint16_t port);
int load_accept(int listener);
/* Connected and without Nagle's delay. */
int load_connect(uint16_t port);
void load_watch(int epoll, int fd, uint32_t events);

#endif
