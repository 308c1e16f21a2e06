/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* ICMP errors for packets ebb routes itself (RFC 792, RFC 1191, RFC 4443). TC only. */
#ifndef EBB_ICMP_H
#define EBB_ICMP_H

#include "csum.h"
#include "parse.h"

#define ICMP_DEST_UNREACH  3
#define ICMP_FRAG_NEEDED   4
#define ICMP_TIME_EXCEEDED 11

#define ICMPV6_PKT_TOOBIG    2
#define ICMPV6_TIME_EXCEEDED 3

#define ICMP_TTL 64

/* What is quoted of the packet: its header without options, and 8 bytes. */
#define QUOTE_V4 (sizeof(struct ipv4_hdr) + 8)
#define QUOTE_V6 (sizeof(struct ipv6_hdr) + 8)

struct icmp_error_v4 {
	struct eth_hdr eth;
	struct ipv4_hdr ip;
	struct icmp_hdr icmp;
	__u8 quote[QUOTE_V4];
} __attribute__((packed));

struct icmp_error_v6 {
	struct eth_hdr eth;
	struct ipv6_hdr ip;
	struct icmp_hdr icmp;
	__u8 quote[QUOTE_V6];
} __attribute__((packed));

static __always_inline __u32 sum16(const void *data, int bytes)
{
	const __u16 *w = data;
	__u32 sum = 0;

#pragma unroll
	for (int i = 0; i < bytes / 2; i++)
		sum += w[i];
	return sum;
}

static __always_inline void eth_turn(void *l2)
{
	struct eth_hdr *eth = l2;
	__u8 mac[6];

	__builtin_memcpy(mac, eth->dst, 6);
	__builtin_memcpy(eth->dst, eth->src, 6);
	__builtin_memcpy(eth->src, mac, 6);
}

static __always_inline long icmp_fill_v4(struct __sk_buff *skb, const struct flow_key *key,
					 __u8 type, __u8 code, __u32 rest)
{
	struct icmp_error_v4 *e = (void *)(long)skb->data;

	if ((void *)(e + 1) > (void *)(long)skb->data_end)
		return -1;
	eth_turn(e);
	__builtin_memset(&e->ip, 0, sizeof(e->ip) + sizeof(e->icmp));
	e->ip.version_ihl = 0x45;
	e->ip.len = bpf_htons(sizeof(*e) - sizeof(e->eth));
	e->ip.ttl = ICMP_TTL;
	e->ip.proto = IPPROTO_ICMP;
	e->ip.src = key->dst.w[3];
	e->ip.dst = key->src.w[3];
	e->ip.check = ~csum_fold(sum16(&e->ip, sizeof(e->ip)));
	e->icmp.type = type;
	e->icmp.code = code;
	e->icmp.rest = bpf_htonl(rest);
	e->icmp.check = ~csum_fold(sum16(&e->icmp, sizeof(e->icmp) + QUOTE_V4));
	return 0;
}

static __always_inline long icmp_fill_v6(struct __sk_buff *skb, const struct flow_key *key,
					 __u8 type, __u8 code, __u32 rest)
{
	struct icmp_error_v6 *e = (void *)(long)skb->data;
	const __u32 bytes = sizeof(e->icmp) + QUOTE_V6;

	if ((void *)(e + 1) > (void *)(long)skb->data_end)
		return -1;
	eth_turn(e);
	__builtin_memset(&e->ip, 0, sizeof(e->ip) + sizeof(e->icmp));
	e->ip.flow = bpf_htonl(6u << 28);
	e->ip.len = bpf_htons(bytes);
	e->ip.next = IPPROTO_ICMPV6;
	e->ip.hop_limit = ICMP_TTL;
	for (int i = 0; i < 4; i++) {
		e->ip.src[i] = key->dst.w[i];
		e->ip.dst[i] = key->src.w[i];
	}
	e->icmp.type = type;
	e->icmp.code = code;
	e->icmp.rest = bpf_htonl(rest);
	e->icmp.check = ~csum_fold(sum16(e->ip.src, 32) + bpf_htons(bytes) +
				   bpf_htons(IPPROTO_ICMPV6) + sum16(&e->icmp, bytes));
	return 0;
}

/*
 * Turn the packet into an ICMP error to its sender, from the address it was
 * sent to, ready to leave by the device it came from. Packets whose quote
 * would not be plain (options, extension headers, tags in the frame) get none.
 */
static __always_inline long icmp_error(struct __sk_buff *skb, const struct packet *p, __u8 type,
				       __u8 code, __u32 rest)
{
	__u32 quote = p->seg.v4 ? QUOTE_V4 : QUOTE_V6;
	__u32 grow = sizeof(struct icmp_hdr) +
		     (p->seg.v4 ? sizeof(struct ipv4_hdr) : sizeof(struct ipv6_hdr));

	if (p->vlans || p->l4_off - p->l3_off + 8u != quote)
		return -1;
	if (bpf_skb_change_tail(skb, sizeof(struct eth_hdr) + quote, 0))
		return -1;
	if (bpf_skb_adjust_room(skb, grow, BPF_ADJ_ROOM_MAC, 0))
		return -1;
	return p->seg.v4 ? icmp_fill_v4(skb, &p->seg.key, type, code, rest)
			 : icmp_fill_v6(skb, &p->seg.key, type, code, rest);
}

#endif
