/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The middle of a connection that came in by another node so far (ECMP, an address that
 * has moved). Nobody here knows it, and its backend is elsewhere. Where that node was the
 * one it came in by, it knows the flow, and translates what comes as it came:
 *
 *	c>v --> this node [in] c>v --> node of b [in] c>b --> b
 *	c<v <------------------------- node of b [out] c<v <-- b>c
 *
 * All nodes that serve v choose b alike while their tables are equal. If the node does
 * not know the flow, the backend, which is local there, says so.
 */
#ifndef EBB_SKB_PEER_H
#define EBB_SKB_PEER_H

#include "flow/limit.h"
#include "skb/ip.h"

/*
 * Whether the next hop in fib is a node like this one: behind an uplink, not the backend
 * itself, and not who sent the packet here, to whom it would go back and forth.
 */
static __always_inline bool peer_is_next(struct __sk_buff *skb, const struct bpf_fib_lookup *fib,
					 const struct flow *f)
{
	__u32 ifindex = fib->ifindex;
	struct device *d = bpf_map_lookup_elem(&devices, &ifindex);
	struct eth_hdr eth;

	if (!d || !(d->flags & DEVICE_AWAY) || d->flags & DEVICE_ANSWERS)
		return false;
	if (fib->family == AF_INET ? fib->ipv4_dst == f->dst.w[3]
				   : !__builtin_memcmp(fib->ipv6_dst, f->dst.b, 16))
		return false;
	return !bpf_skb_load_bytes(skb, 0, &eth, sizeof(eth)) &&
	       __builtin_memcmp(eth.src, fib->dmac, sizeof(eth.src));
}

/*
 * Send a packet with VERDICT_PASSED_ON to the node of the backend in halves_room().
 * Returns the action, or TC_UNHANDLED. Not inlined, for the stack.
 */
__noinline int pass_on(struct __sk_buff *skb, __u32 l3_off)
{
	struct header_scratch *scratch = header_scratch_get();
	struct bpf_fib_lookup *fib = fib_scratch_get();
	struct halves *room = halves_room();

	if (!scratch || !fib || !room || skb->vlan_present)
		return TC_UNHANDLED;
	if (ip_load(skb, l3_off, &scratch->ip))
		return TC_UNHANDLED;
	if (ip_route(skb, &room->forward, VERDICT_PASSED_ON) != VERDICT_PASSED_ON ||
	    scratch->way != IP_SEND || !peer_is_next(skb, fib, &room->forward))
		return TC_UNHANDLED;
	if (!room->passed && !answer_allowed())
		return TC_UNHANDLED;
	scratch->to.src = scratch->ip.src;
	scratch->to.dst = scratch->ip.dst;
	scratch->to.hops = 1;
	if (ip_store(skb, &scratch->ip, &scratch->to))
		return TC_DROP;
	tc_fix_sum(skb, scratch->ip.v4, 0, 1);
	given_note(tuple_hash(&room->key), room->forward.backend);
	return ip_send(skb, 0);
}

#endif
