/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* ICMP, as far as ebb speaks it (RFC 792, RFC 1191, RFC 4443). */
#ifndef EBB_ICMP_H
#define EBB_ICMP_H

#include "csum.h"
#include "parse.h"

#define ICMP_ECHO_REPLY    0
#define ICMP_DEST_UNREACH  3
#define ICMP_PORT_UNREACH  3 /* code */
#define ICMP_FRAG_NEEDED   4 /* code */
#define ICMP_ECHO          8
#define ICMP_TIME_EXCEEDED 11

#define ICMPV6_DEST_UNREACH  1
#define ICMPV6_PORT_UNREACH  4 /* code */
#define ICMPV6_PKT_TOOBIG    2
#define ICMPV6_TIME_EXCEEDED 3
#define ICMPV6_ECHO          128
#define ICMPV6_ECHO_REPLY    129

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

static __always_inline void eth_turn(struct eth_hdr *eth)
{
	__u8 mac[6];

	__builtin_memcpy(mac, eth->dst, 6);
	__builtin_memcpy(eth->dst, eth->src, 6);
	__builtin_memcpy(eth->src, mac, 6);
}

#endif
