/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* ICMP, as far as ebb speaks it (RFC 792, RFC 1191, RFC 4443). */
#ifndef EBB_WIRE_ICMP_H
#define EBB_WIRE_ICMP_H

#include "wire/csum.h"
#include "wire/parse.h"

#define ICMP_ECHO_REPLY    0
#define ICMP_DEST_UNREACH  3
#define ICMP_NET_UNREACH   0 /* codes */
#define ICMP_HOST_UNREACH  1
#define ICMP_PORT_UNREACH  3
#define ICMP_FRAG_NEEDED   4
#define ICMP_FILTERED      13
#define ICMP_ECHO          8
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAM_PROBLEM 12

#define ICMPV6_DEST_UNREACH  1
#define ICMPV6_NO_ROUTE      0 /* codes */
#define ICMPV6_PROHIBITED    1
#define ICMPV6_ADDR_UNREACH  3
#define ICMPV6_PORT_UNREACH  4
#define ICMPV6_PKT_TOOBIG    2
#define ICMPV6_TIME_EXCEEDED 3
#define ICMPV6_PARAM_PROBLEM 4
#define ICMPV6_ECHO          128
#define ICMPV6_ECHO_REPLY    129

/* Least that is quoted behind the IP header: ports, TCP's sequence number. */
#define ICMP_QUOTE 8

#define ANSWER_TTL 64 /* of packets the node makes */

static __always_inline __u32 sum16(const void *data, int bytes)
{
	const __u16 *w = data;
	__u32 sum = 0;

#pragma unroll
	for (int i = 0; i < bytes / 2; i++)
		sum += w[i];
	return sum;
}

#endif
