/* SPDX-License-Identifier: Apache-2.0 */
/* The addresses of the name given, one a line: getent of another C library. */
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>

int main(int argc, char **argv)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *all;
	char text[INET6_ADDRSTRLEN];

	if (argc != 2)
		return fputs("usage: resolve NAME\n", stderr), 2;
	int err = getaddrinfo(argv[1], NULL, &hints, &all);
	if (err)
		return fprintf(stderr, "%s: %s\n", argv[1], gai_strerror(err)), 1;
	for (struct addrinfo *a = all; a; a = a->ai_next) {
		if (getnameinfo(a->ai_addr, a->ai_addrlen, text, sizeof(text), NULL, 0, NI_NUMERICHOST))
			return fputs("no text for an address\n", stderr), 1;
		puts(text);
	}
}
