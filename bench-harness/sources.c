/* Gives every outgoing IPv4 connection a loopback source address of its own, in turn:
   LD_PRELOAD for load tools that cannot bind (smtp-source). WEIR_SOURCES="127.4.0.1 50":
   first address and how many. Built by figures.py. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

int connect(int fd, const struct sockaddr *to, socklen_t length)
{
    static int (*real)(int, const struct sockaddr *, socklen_t);
    static unsigned first, count, turn;

    if (!real) {
        const char *wish = getenv("WEIR_SOURCES");
        char text[64];

        real = (int (*)(int, const struct sockaddr *, socklen_t)) dlsym(RTLD_NEXT, "connect");
        if (wish && sscanf(wish, "%63s %u", text, &count) == 2)
            first = ntohl(inet_addr(text));
    }
    if (count && to->sa_family == AF_INET) {
        struct sockaddr_in from = {.sin_family = AF_INET};
        int one = 1;

        from.sin_addr.s_addr = htonl(first + turn++ % count);
        /* The port is chosen at connect, so that it only has to be free for this pair of ends. */
        setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
        bind(fd, (struct sockaddr *) &from, sizeof from);
    }
    return real(fd, to, length);
}
