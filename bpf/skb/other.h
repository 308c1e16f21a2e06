/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Packets of protocols that are not balanced, to a Service's address: pings are answered
 * if that is wanted, the others refused or let pass.
 */
#ifndef EBB_SKB_OTHER_H
#define EBB_SKB_OTHER_H

#include "skb/answer.h"
#include "skb/circle.h"

/* Turn an echo request round where it is. */
static __always_inline bool echo_turn(struct packet *p)
{
	struct icmp_hdr *icmp;
	__be16 was, is;

	if (p->seg.v4) {
		struct ipv4_hdr *ip = p->l3;

		icmp = (void *)(ip + 1);
		if ((void *)(icmp + 1) > p->end)
			return false;
		ip->src = p->seg.key.dst.w[3];
		ip->dst = p->seg.key.src.w[3];
		ip->ttl = ANSWER_TTL;
		ip->check = 0;
		ip->check = ~csum_fold(sum16(ip, sizeof(*ip)));
	} else {
		struct ipv6_hdr *ip = p->l3;

		icmp = (void *)(ip + 1);
		if ((void *)(icmp + 1) > p->end)
			return false;
		for (int i = 0; i < 4; i++) {
			ip->src[i] = p->seg.key.dst.w[i];
			ip->dst[i] = p->seg.key.src.w[i];
		}
		ip->hop_limit = ANSWER_TTL;
	}
	was = *(__be16 *)icmp;
	icmp->type = p->seg.v4 ? ICMP_ECHO_REPLY : ICMPV6_ECHO_REPLY;
	is = *(__be16 *)icmp;
	icmp->check = csum_apply(icmp->check, csum_diff16(was, is));
	return true;
}

/* Send an echo reply back to where eth came from. */
static __always_inline bool echo_address(struct __sk_buff *skb, struct eth_hdr *eth, bool no_l2)
{
	if (cfg_no_ethernet)
		return true;
	eth_turn(eth);
	if (no_l2 && bpf_skb_change_head(skb, sizeof(*eth), 0))
		return false;
	return !bpf_skb_store_bytes(skb, 0, eth, no_l2 ? sizeof(*eth) : sizeof(*eth) - 2, 0);
}

/* Answer a ping. VERDICT_NOT_L4: it is not for us to answer. */
static __always_inline enum verdict echo_answer(struct __sk_buff *skb, struct packet *p)
{
	__u32 header = p->seg.v4 ? sizeof(struct ipv4_hdr) : sizeof(struct ipv6_hdr);
	struct eth_hdr eth = {};
	bool no_l2 = !p->l2;

	if (p->l4_off - p->l3_off != header)
		return VERDICT_NOT_L4;
	if (!cfg_no_ethernet &&
	    bpf_skb_load_bytes_relative(skb, 0, &eth, sizeof(eth), BPF_HDR_START_MAC))
		return VERDICT_NOT_L4;
	if (!reject_answers(&p->seg, &eth))
		return VERDICT_NOT_L4;
	if (!answer_allowed())
		return VERDICT_REJECT_LIMITED;
	if (!echo_turn(p) || !echo_address(skb, &eth, no_l2))
		return VERDICT_REWRITE_FAILED;
	bpf_redirect(skb->ifindex, 0);
	return VERDICT_ECHO;
}

/*
 * The verdict on a packet of a protocol that is not balanced. Of ICMP only echo
 * requests count: errors belong to flows, replies to requests.
 */
__noinline int other_verdict(struct __sk_buff *skb, __u32 hook)
{
	struct packet p;
	bool icmp;
	__u8 type;
	int v;

	if (tc_parse(skb, HOOK_TC_INGRESS, &p) != VERDICT_NOT_L4 || !other_parse(&p))
		return VERDICT_NOT_L4;
	icmp = p.seg.key.proto == (p.seg.v4 ? IPPROTO_ICMP : IPPROTO_ICMPV6);
	if (icmp && (bpf_skb_load_bytes(skb, p.l4_off, &type, sizeof(type)) ||
		     type != (p.seg.v4 ? ICMP_ECHO : ICMPV6_ECHO)))
		return VERDICT_NOT_L4;
	if (cfg_vip_echo && icmp && address_flags(&p.seg.key.dst) & ADDRESS_EXTERNAL)
		return echo_answer(skb, &p);
	v = address_in_services(&p.seg.key.dst, p.seg.v4) ? address_verdict(&p.seg.key.dst)
							  : VERDICT_NOT_SERVICE;
	if (v == VERDICT_NOT_SERVICE && hook == HOOK_TC_INGRESS)
		v = circle_verdict(skb, &p.seg);
	return v == VERDICT_NOT_SERVICE ? VERDICT_NOT_L4 : v;
}

#endif
