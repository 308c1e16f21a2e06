/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * ICMP errors about packets of flows: they quote a packet as it was behind the
 * translation, and are for whoever sent it before. The quoted tuple, turned
 * round, is that of the packets that go the error's way: the key of the entry
 * by which the error, and what it quotes, are translated.
 *
 * An error changes no flow, and is itself never answered with an error.
 */
#ifndef EBB_SKB_ERROR_H
#define EBB_SKB_ERROR_H

#include "wire/icmp.h"
#include "skb/ip.h"

/* Redirects are for the node itself, and source quench is no more (RFC 6633). */
static __always_inline bool related_type(const struct ip_header *ip, __u8 type)
{
	if (ip->v4)
		return type == ICMP_DEST_UNREACH || type == ICMP_TIME_EXCEEDED ||
		       type == ICMP_PARAM_PROBLEM;
	return type >= ICMPV6_DEST_UNREACH && type <= ICMPV6_PARAM_PROBLEM;
}

/* Read the error and its quote. False: it is none that could be about a flow. */
static __always_inline bool related_parse(struct __sk_buff *skb, __u32 l3_off,
					  struct header_scratch *scratch)
{
	struct ip_header *ip = &scratch->ip, *quoted = &scratch->quoted;
	__be16 ports[2];
	__u32 quote;
	__u8 type;

	if (ip_load(skb, l3_off, ip) || ip->fragment ||
	    ip->proto != (ip->v4 ? IPPROTO_ICMP : IPPROTO_ICMPV6))
		return false;
	quote = ip->l4_off + sizeof(struct icmp_hdr);
	if (!ip_has(skb, ip, quote, 0) || bpf_skb_load_bytes(skb, ip->l4_off, &type, 1) ||
	    !related_type(ip, type))
		return false;
	/* An error is sent to where the packet came from. */
	if (ip_load(skb, quote, quoted) || quoted->offset || quoted->v4 != ip->v4 ||
	    !addr_equal(&quoted->src, &ip->dst))
		return false;
	if (!ip_has(skb, ip, quoted->l4_off, ICMP_QUOTE) ||
	    bpf_skb_load_bytes(skb, quoted->l4_off, ports, sizeof(ports)))
		return false;
	__builtin_memset(&scratch->key, 0, sizeof(scratch->key));
	scratch->key.src = quoted->dst;
	scratch->key.dst = quoted->src;
	scratch->key.sport = ports[1];
	scratch->key.dport = ports[0];
	scratch->key.proto = quoted->proto;
	return true;
}

/* Correct the checksum that is quoted, if it is. Returns what that adds to a sum. */
static __always_inline __u32 related_quoted_sum(struct __sk_buff *skb,
						const struct header_scratch *scratch, __u32 diff)
{
	bool udp = scratch->quoted.proto == IPPROTO_UDP;
	__u32 off = scratch->quoted.l4_off + (udp ? __builtin_offsetof(struct udp_hdr, check)
						  : __builtin_offsetof(struct tcp_hdr, check));
	__u16 old, sum;

	if (!udp && scratch->quoted.proto != IPPROTO_TCP)
		return 0;
	if (!ip_has(skb, &scratch->ip, off, sizeof(old)) ||
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
static __always_inline long related_quote(struct __sk_buff *skb, struct header_scratch *scratch,
					  const struct flow *f)
{
	__be16 ports[2] = {f->dport, f->sport};
	__u32 diff = f->csum_port;

	scratch->to.src = f->dst;
	scratch->to.dst = f->src;
	scratch->to.hops = 0;
	if (ip_store(skb, &scratch->quoted, &scratch->to) ||
	    bpf_skb_store_bytes(skb, scratch->quoted.l4_off, ports, sizeof(ports), 0))
		return -1;
	if (!scratch->quoted.v4)
		diff += scratch->to.sum;
	diff += related_quoted_sum(skb, scratch, scratch->to.sum + f->csum_port);
	return bpf_l4_csum_replace(
		skb, scratch->ip.l4_off + __builtin_offsetof(struct icmp_hdr, check), 0, diff, 0);
}

/*
 * Whom the error is from and for. Towards a client it comes from the service
 * address, as replies do, and towards a backend elsewhere from the node: a
 * router on the way drops what has its own address, or one that does not belong
 * there, and netfilter does the same. Only a local backend sees who made it.
 */
static __always_inline void related_addrs(struct header_scratch *scratch, const struct flow *f)
{
	scratch->to.src = f->flags & FLOW_REVERSE || flow_routed(f) ? f->src : scratch->ip.src;
	scratch->to.dst = f->dst;
	scratch->to.hops = flow_routed(f) ? 1 : 0;
}

/* The outer header, and in ICMPv6 the checksum, which covers its addresses. */
static __always_inline long related_header(struct __sk_buff *skb, struct header_scratch *scratch,
					   const struct flow *f)
{
	related_addrs(scratch, f);
	if (ip_store(skb, &scratch->ip, &scratch->to))
		return -1;
	if (scratch->ip.v4)
		return 0;
	if (bpf_l4_csum_replace(skb,
				scratch->ip.l4_off + __builtin_offsetof(struct icmp_hdr, check), 0,
				scratch->to.sum, BPF_F_PSEUDO_HDR))
		return -1;
	tc_fix_sum(skb, scratch->ip.v4, scratch->to.sum, scratch->to.hops);
	return 0;
}

static __always_inline int related_translate(struct __sk_buff *skb, struct header_scratch *scratch,
					     const struct flow *f, enum verdict *v)
{
	scratch->way = flow_routed(f) ? IP_SEND : IP_PASS;
	if (scratch->way == IP_SEND) {
		related_addrs(scratch, f);
		*v = ip_route(skb, f, VERDICT_RELATED);
		if (*v != VERDICT_RELATED)
			return TC_DROP;
	}
	if (related_quote(skb, scratch, f) || related_header(skb, scratch, f)) {
		*v = VERDICT_REWRITE_FAILED;
		return TC_DROP;
	}
	return ip_send(skb, f->flags);
}

/* An ICMP message whose IP header is at l3_off. Returns the action, the verdict counted, or
 * TC_UNHANDLED. */
__noinline int related(struct __sk_buff *skb, __u32 hook, __u32 l3_off)
{
	struct header_scratch *scratch = header_scratch_get();
	enum verdict v = VERDICT_RELATED;
	struct flow *f;
	int action;

	if (!scratch || !related_parse(skb, l3_off, scratch))
		return TC_UNHANDLED;
	f = flow_find_any(&scratch->key);
	if (!f || !flow_at_hook(f, hook))
		return TC_UNHANDLED;
	action = related_translate(skb, scratch, f, &v);
	count_verdict(hook, v);
	return action;
}

#endif
