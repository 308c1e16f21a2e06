/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Where a packet goes that ebb routes itself, and how it is sent there. */
#ifndef EBB_SKB_SEND_H
#define EBB_SKB_SEND_H

#include "route/fib.h"
#include "flow/decide.h"
#include "skb/context.h"

/* How a packet that ebb routes is to leave. */
struct tc_route {
	struct next_hop hop; /* the header is written; only the MTU if one of these: */
	__u8 neigh; /* by the kernel's neighbour code, the next hop is in fib_scratch_get() */
	__u8 local; /* to this node after all */
	__u8 why;   /* there is none: the kernel's answer */
	__u8 stack; /* the stack sends it, see tc_to_stack() */
};

/* How long the kernel asks for a neighbour before it gives up, in ticks. */
#define UNRESOLVED_TICKS 3

/* Every so many ticks a packet has it asked for again. */
#define UNRESOLVED_AGAIN 4

/* After so many ticks in which nobody sent there, nothing is known of it. */
#define UNRESOLVED_FORGET 16

struct unresolved {
	__u32 since; /* tick of the first packet, of the last one, and of the last that was sent */
	__u32 last;
	__u32 sent;
};

/* next hops that are not resolved; in vain, if for long enough */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct neighbour_key);
	__type(value, struct unresolved);
} unresolved SEC(".maps");

/*
 * Whether the next hop in fib_scratch_get(), which is not resolved, is dead. The
 * kernel would say so by an ICMP error to who sent the packet, which is the node; and
 * of what bpf_redirect_neigh() sends to a given next hop it does not. For the stack, not inlined.
 */
__noinline int neighbour_dead(void)
{
	struct bpf_fib_lookup *fib = fib_scratch_get();
	__u32 now = now_tick();
	struct unresolved first = {.since = now, .last = now, .sent = now};
	struct neighbour_key key;
	struct unresolved *u;

	if (!fib)
		return 0;
	neighbour_key_of(fib, &key);
	u = bpf_map_lookup_elem(&unresolved, &key);
	if (!u || now - u->last > UNRESOLVED_FORGET) {
		bpf_map_update_elem(&unresolved, &key, &first, BPF_ANY);
		return 0;
	}
	u->last = now;
	if (now - u->since < UNRESOLVED_TICKS)
		return 0;
	if (now - u->sent < UNRESOLVED_AGAIN)
		return 1;
	u->sent = now;
	return 0;
}

/* Remember what the kernel has answered. */
static __always_inline void tc_remember(struct __sk_buff *skb, const struct route_query *q,
					struct flow *f, const struct bpf_fib_lookup *fib,
					struct next_hop *hop)
{
	neighbour_probed(fib);
	if (!q->cacheable)
		return;
	next_hop_of(fib, fib->ifindex, (f->route & ROUTE_NOT_XDP) | ROUTE_TC, hop);
	if (route_shared(q, f))
		route_keep(f, skb->ifindex, hop);
	if (!q->fresh)
		route_remember(f, hop);
}

static __always_inline enum verdict tc_resolve(struct __sk_buff *skb, const struct route_query *q,
					       struct flow *f, struct tc_route *r, enum verdict v)
{
	struct bpf_fib_lookup *fib = fib_scratch_get();
	long err;

	if (!fib)
		return VERDICT_NO_ROUTE;
	err = fib_ask(skb, skb->ifindex, q, f, fib);
	r->hop.mtu = fib->mtu_result;
	r->neigh = true;
	if (err == BPF_FIB_LKUP_RET_FRAG_NEEDED)
		return VERDICT_TOO_BIG;
	if (err == BPF_FIB_LKUP_RET_NOT_FWDED && v == VERDICT_REPLY_REMOTE) {
		r->local = true;
		return v;
	}
	if (err == FIB_TO_STACK) {
		r->stack = true;
		return v;
	}
	if (err == BPF_FIB_LKUP_RET_NO_NEIGH && !neighbour_dead())
		return v;
	r->why = err;
	if (err != BPF_FIB_LKUP_RET_SUCCESS)
		return VERDICT_NO_ROUTE;
	tc_remember(skb, q, f, fib, &r->hop);
	return v;
}

/* The route of a flow that has none. Not inlined, as xdp_find(), and for the stack. */
__noinline int tc_find(struct __sk_buff *skb, const struct route_query *q, struct flow *f,
		       struct tc_route *r, __u32 v)
{
	struct next_hop *hop = NULL;

	if (!q || !f || !r)
		return VERDICT_NO_ROUTE;
	if (route_shared(q, f))
		hop = route_recall(f, skb->ifindex);
	if (!hop)
		return tc_resolve(skb, q, f, r, v);
	r->hop = *hop;
	if (!q->fresh)
		route_remember(f, hop);
	return v;
}

static __always_inline enum verdict tc_route(struct __sk_buff *skb, struct packet *p,
					     struct outcome *o, struct tc_route *r, enum verdict v)
{
	struct flow *f = o->flow;
	__u32 bytes = tc_wire_len(skb, p);
	struct route_query q = {};

	q.cacheable = p->l2 && !p->vlans && !skb->vlan_present;
	if (q.cacheable && route_known(f, ROUTE_TC, &r->hop.ifindex)) {
		r->hop.mtu = f->mtu;
		if (bytes > r->hop.mtu)
			return VERDICT_TOO_BIG;
		route_write_eth(p, f);
		return v;
	}
	route_query_of(p, bytes, &q);
	q.fresh = o->fresh;
	v = tc_find(skb, &q, f, r, v);
	if (r->neigh)
		return v;
	if (bytes > r->hop.mtu)
		return VERDICT_TOO_BIG;
	/* As q.cacheable was; the verifier does not know that tc_find() leaves it as it is. */
	if (p->l2)
		next_hop_write_eth(p, &r->hop);
	return v;
}

/*
 * Have the stack send a packet that is translated: at the loopback device, the only one where
 * it takes packets from addresses of its own that come in (the agent sets accept_local there).
 * Their frames are to the device's MAC, which is empty. Not inlined, for the stack.
 */
__noinline int tc_to_stack(struct __sk_buff *skb, __u32 no_l2)
{
	struct eth_hdr eth = {.proto = skb->protocol};

	if (skb->vlan_present)
		bpf_skb_vlan_pop(skb);
	if (tc_restore_l2(skb, no_l2) || bpf_skb_store_bytes(skb, 0, &eth, sizeof(eth), 0))
		return TC_DROP;
	return bpf_redirect(LOOPBACK_IFINDEX, BPF_F_INGRESS);
}

/*
 * Through the kernel's neighbour code, which resolves and confirms. The next
 * hop is written over the answer it comes from.
 */
static __always_inline int tc_send_neigh(struct __sk_buff *skb, bool no_l2,
					 struct bpf_fib_lookup *fib)
{
	struct bpf_redir_neigh *nh = (void *)fib;
	__u32 ifindex = fib->ifindex;

	_Static_assert(sizeof(*nh) <= __builtin_offsetof(struct bpf_fib_lookup, ipv6_dst),
		       "overlap");
	nh->nh_family = fib->family;
	for (int i = 0; i < 4; i++)
		nh->ipv6_nh[i] = fib->ipv6_dst[i];
	if (skb->vlan_present)
		bpf_skb_vlan_pop(skb);
	if (tc_restore_l2(skb, no_l2))
		return TC_DROP;
	return bpf_redirect_neigh(ifindex, nh, sizeof(*nh), 0);
}

#endif
