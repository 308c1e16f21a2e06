/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * ICMP errors about packets of flows: they quote a packet as it was behind the
 * translation, and are for whoever sent it before. The quoted tuple, turned
 * round, is that of the packets that go the error's way: the key of the entry
 * by which the error, and what it quotes, are translated.
 *
 * An error changes no flow, and is itself never answered with an error.
 */
#ifndef EBB_RELATED_H
#define EBB_RELATED_H

#include "rare.h"

#define ICMP_PARAMETER_PROBLEM 12

#define ICMPV6_PARAMETER_PROBLEM 4

#define QUOTE_BYTES 8 /* least of what is quoted of the transport header (RFC 792) */

/* Redirects are for the node itself, and source quench is no more (RFC 6633). */
static __always_inline bool related_type(const struct rare_ip *ip, __u8 type)
{
	if (ip->v4)
		return type == ICMP_DEST_UNREACH || type == ICMP_TIME_EXCEEDED ||
		       type == ICMP_PARAMETER_PROBLEM;
	return type >= ICMPV6_DEST_UNREACH && type <= ICMPV6_PARAMETER_PROBLEM;
}

/* Read the error and its quote. False: it is none that could be about a flow. */
static __always_inline bool related_parse(struct __sk_buff *skb, __u32 l3_off,
					  struct rare_room *room)
{
	struct rare_ip *ip = &room->ip, *quoted = &room->quoted;
	__be16 ports[2];
	__u32 quote;
	__u8 type;

	if (rare_parse(skb, l3_off, ip) || ip->fragment ||
	    ip->proto != (ip->v4 ? IPPROTO_ICMP : IPPROTO_ICMPV6))
		return false;
	quote = ip->l4_off + sizeof(struct icmp_hdr);
	if (!rare_has(skb, ip, quote, 0) || bpf_skb_load_bytes(skb, ip->l4_off, &type, 1) ||
	    !related_type(ip, type))
		return false;
	/* An error is sent to where the packet came from. */
	if (rare_parse(skb, quote, quoted) || quoted->offset || quoted->v4 != ip->v4 ||
	    !addr_equal(&quoted->src, &ip->dst))
		return false;
	if (!rare_has(skb, ip, quoted->l4_off, QUOTE_BYTES) ||
	    bpf_skb_load_bytes(skb, quoted->l4_off, ports, sizeof(ports)))
		return false;
	__builtin_memset(&room->key, 0, sizeof(room->key));
	room->key.src = quoted->dst;
	room->key.dst = quoted->src;
	room->key.sport = ports[1];
	room->key.dport = ports[0];
	room->key.proto = quoted->proto;
	return true;
}

/* Correct the checksum that is quoted, if it is. Returns what that adds to a sum. */
static __always_inline __u32 related_quoted_sum(struct __sk_buff *skb, const struct rare_room *room,
						__u32 diff)
{
	bool udp = room->quoted.proto == IPPROTO_UDP;
	__u32 off = room->quoted.l4_off + (udp ? __builtin_offsetof(struct udp_hdr, check)
					       : __builtin_offsetof(struct tcp_hdr, check));
	__u16 old, sum;

	if (!udp && room->quoted.proto != IPPROTO_TCP)
		return 0;
	if (!rare_has(skb, &room->ip, off, sizeof(old)) ||
	    bpf_skb_load_bytes(skb, off, &old, sizeof(old)) || (udp && !old))
		return 0;
	sum = csum_apply(old, diff);
	if (udp && !sum)
		sum = 0xffff;
	if (bpf_skb_store_bytes(skb, off, &sum, sizeof(sum), 0))
		return 0;
	return csum_fold(csum_diff16(old, sum));
}

/* Undo the translation of what is quoted, and correct the checksum of the message. */
static __always_inline long related_quote(struct __sk_buff *skb, struct rare_room *room,
					  const struct flow *f)
{
	__be16 ports[2] = {f->dport, f->sport};
	__u32 diff = f->csum_port;

	room->to.src = f->dst;
	room->to.dst = f->src;
	room->to.hops = 0;
	if (rare_write(skb, &room->quoted, &room->to) ||
	    bpf_skb_store_bytes(skb, room->quoted.l4_off, ports, sizeof(ports), 0))
		return -1;
	if (!room->quoted.v4)
		diff += room->to.sum;
	diff += related_quoted_sum(skb, room, room->to.sum + f->csum_port);
	return bpf_l4_csum_replace(
		skb, room->ip.l4_off + __builtin_offsetof(struct icmp_hdr, check), 0, diff, 0);
}

/*
 * Whom the error is from and for. Towards a client it comes from the service
 * address, as replies do, and towards a backend elsewhere from the node: a
 * router on the way drops what has its own address, or one that does not belong
 * there, and netfilter does the same. Only a local backend sees who made it.
 */
static __always_inline void related_addrs(struct rare_room *room, const struct flow *f)
{
	room->to.src = f->flags & FLOW_REVERSE || flow_routed(f) ? f->src : room->ip.src;
	room->to.dst = f->dst;
	room->to.hops = flow_routed(f) ? 1 : 0;
}

/* The outer header, and in ICMPv6 the checksum, which covers its addresses. */
static __always_inline long related_header(struct __sk_buff *skb, struct rare_room *room,
					   const struct flow *f)
{
	related_addrs(room, f);
	if (rare_write(skb, &room->ip, &room->to))
		return -1;
	if (room->ip.v4)
		return 0;
	if (bpf_l4_csum_replace(skb, room->ip.l4_off + __builtin_offsetof(struct icmp_hdr, check),
				0, room->to.sum, BPF_F_PSEUDO_HDR))
		return -1;
	rare_settle(skb, &room->ip, &room->to);
	return 0;
}

static __always_inline int related_translate(struct __sk_buff *skb, struct rare_room *room,
					     const struct flow *f, enum verdict *v)
{
	bool local = !flow_routed(f);

	if (!local) {
		related_addrs(room, f);
		*v = rare_route(skb, room, f, VERDICT_RELATED, &local);
		if (*v != VERDICT_RELATED)
			return TC_DROP;
	}
	if (related_quote(skb, room, f) || related_header(skb, room, f)) {
		*v = VERDICT_REWRITE_FAILED;
		return TC_DROP;
	}
	return local ? rare_pass(skb, f) : rare_send(skb, !room->ip.l3_off);
}

/* An ICMP message whose IP header is at l3_off. Returns the action, the verdict counted, or
 * RARE_NONE. */
__noinline int related(struct __sk_buff *skb, __u32 hook, __u32 l3_off)
{
	struct rare_room *room = rare_space();
	enum verdict v = VERDICT_RELATED;
	struct flow *f;
	int action;

	if (!room || !related_parse(skb, l3_off, room))
		return RARE_NONE;
	f = rare_flow(&room->key);
	if (!f || !flow_at_hook(f, hook))
		return RARE_NONE;
	action = related_translate(skb, room, f, &v);
	count_verdict(hook, v);
	return action;
}

#endif
