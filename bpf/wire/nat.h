/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Carries out a flow's rewrite on headers. Checksums above layer 3 are the hook's. */
#ifndef EBB_WIRE_NAT_H
#define EBB_WIRE_NAT_H

#include "wire/csum.h"
#include "wire/parse.h"

/*
 * What one less in the TTL adds to a sum: the difference of the 16-bit word it
 * stands in. IPv4 has it in the first byte, IPv6 in the second.
 */
#define TTL_DIFF 0xfeff
#define HOP_DIFF 0xfffe

static __always_inline bool nat_ipv4(struct packet *p, const struct flow *f, bool routed)
{
	struct ipv4_hdr *ip = p->l3;
	__u32 diff = f->csum_addr;

	if ((void *)(ip + 1) > p->end)
		return false;
	ip->src = f->src.w[3];
	ip->dst = f->dst.w[3];
	if (routed) {
		ip->ttl--;
		diff += bpf_htons(TTL_DIFF);
	}
	ip->check = csum_apply(ip->check, diff);
	return true;
}

static __always_inline bool nat_ipv6(struct packet *p, const struct flow *f, bool routed)
{
	struct ipv6_hdr *ip = p->l3;

	if ((void *)(ip + 1) > p->end)
		return false;
	for (int i = 0; i < 4; i++) {
		ip->src[i] = f->src.w[i];
		ip->dst[i] = f->dst.w[i];
	}
	if (routed)
		ip->hop_limit--;
	return true;
}

/*
 * Addresses, TTL and ports, which stand first in TCP, UDP and SCTP. The bounds
 * were checked when the packet was parsed; they are checked again because the
 * verifier does not remember which of the families it was (6.1 to 6.18).
 */
static __always_inline bool nat_headers(struct packet *p, const struct flow *f, bool routed)
{
	struct udp_hdr *l4 = p->l4;

	if (!(p->seg.v4 ? nat_ipv4(p, f, routed) : nat_ipv6(p, f, routed)))
		return false;
	l4->sport = f->sport;
	l4->dport = f->dport;
	return true;
}

static __always_inline __u8 nat_ttl(const struct packet *p)
{
	return p->seg.v4 ? ((struct ipv4_hdr *)p->l3)->ttl : ((struct ipv6_hdr *)p->l3)->hop_limit;
}

/* The frame goes back to who sent it. */
static __always_inline void eth_turn(struct eth_hdr *eth)
{
	__u8 mac[6];

	__builtin_memcpy(mac, eth->dst, 6);
	__builtin_memcpy(eth->dst, eth->src, 6);
	__builtin_memcpy(eth->src, mac, 6);
}

#endif
