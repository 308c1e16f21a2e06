/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What becomes of a packet at the hooks of TC: read, decided by flow/decide.h,
 * carried out by the headers included here.
 */
#ifndef EBB_SKB_HANDLE_H
#define EBB_SKB_HANDLE_H

#include "wire/nat.h"
#include "flow/decide.h"
#include "skb/answer.h"
#include "skb/circle.h"
#include "skb/cut.h"
#include "skb/error.h"
#include "skb/fragment.h"
#include "skb/known.h"
#include "skb/other.h"
#include "skb/peer.h"
#include "skb/rewrite.h"
#include "skb/send.h"

/*
 * Values of skb->tc_index, which nothing else uses on these ways. What ebb sends is not
 * looked at where it leaves. What has been translated by programs of a device is not
 * looked at by those of the bridge or VLAN device above it, which would take it for a
 * connection to the backend itself.
 */
#define TC_SENT 0xebb
#define TC_SEEN 0xebc

/*
 * The answer of a backend that is here, translated. The kernel has chosen its way by the
 * backend's address; rules for that, as for pods with interfaces of their own, are not
 * for the address it has now.
 */
static __always_inline int tc_reroute(struct __sk_buff *skb, struct packet *p, struct flow *f)
{
	struct bpf_fib_lookup *fib = fib_scratch_get();
	struct route_query q = {
		.bytes = FIB_ANY_LENGTH,
		.proto = p->seg.key.proto,
		.v4 = p->seg.v4,
	};
	struct device *d;
	__u32 ifindex;
	long err;

	if (!fib)
		return TC_NEXT;
	err = fib_ask(skb, LOOPBACK_IFINDEX, &q, f, fib);
	ifindex = fib->ifindex;
	if (err == FIB_TO_STACK) {
		skb->tc_index = TC_SENT;
		return tc_to_stack(skb, !p->l2);
	}
	if (!fib_leads(err) || ifindex == skb->ifindex)
		return TC_NEXT;
	d = bpf_map_lookup_elem(&devices, &ifindex);
	if (!d || !(d->flags & DEVICE_AWAY))
		return TC_NEXT;
	skb->tc_index = TC_SENT;
	return tc_send_neigh(skb, !p->l2, fib);
}

/* tc_unsent() has cut the packet: or'ed to the action. Its sender is to be told. */
#define TC_WAS_CUT 0x100
#define TC_TELL    0x200
/* What it takes for "cannot be cut". */
#define TC_UNCUT 0xffffffff

/*
 * A packet that goes no further by reason v. One that is larger than its way is cut, if its
 * IP header is at l3_off and not TC_UNCUT. Else its sender is told, of a route what the
 * kernel would tell: nothing of a black hole, or where it does not forward. detail: the MTU,
 * or the kernel's answer. Not inlined, as tc_find().
 */
__noinline int tc_unsent(struct __sk_buff *skb, __u32 v, __u32 detail, __u32 l3_off, __u32 over)
{
	int action;

	if (v == VERDICT_TOO_BIG && l3_off != TC_UNCUT) {
		action = cut(skb, l3_off, detail, over);
		if (action != TC_NOT_CUT)
			return action | TC_WAS_CUT;
	}
	if (v == VERDICT_NO_ROUTE && detail != BPF_FIB_LKUP_RET_UNREACHABLE &&
	    detail != BPF_FIB_LKUP_RET_PROHIBIT && detail != BPF_FIB_LKUP_RET_NOT_FWDED &&
	    detail != BPF_FIB_LKUP_RET_NO_NEIGH)
		return TC_DROP;
	return TC_TELL; /* not from here, for the stack */
}

/* At an uplink: what could not be routed, *v says why. */
static __always_inline int uplink_unsent(struct __sk_buff *skb, const struct packet *p,
					 const struct tc_route *r, enum hook hook, enum verdict *v)
{
	__u32 l3_off = TC_UNCUT, over = 0, detail = r->why;
	int action;

	if (*v == VERDICT_TOO_BIG) {
		detail = r->hop.mtu;
		over = tc_wire_len(skb, p) - detail;
		/* Pieces of SCTP could not be translated, see docs/architecture.md. */
		if (hook == HOOK_TC_INGRESS && p->seg.v4 && p->seg.key.proto != IPPROTO_SCTP)
			l3_off = p->l3_off;
	}
	action = tc_unsent(skb, *v, detail, l3_off, over);
	if (action == TC_TELL)
		return tc_answer(skb, *v, detail);
	if (action & TC_WAS_CUT)
		*v = VERDICT_FRAGMENTED;
	return action & ~TC_WAS_CUT;
}

/* At an uplink: what has its backend or client elsewhere is routed here. */
static __always_inline int uplink_translate(struct __sk_buff *skb, struct packet *p,
					    struct outcome *o, enum hook hook, enum verdict *v)
{
	/* What acts where packets leave is routed already. */
	bool routed = !hook_is_egress(hook) && verdict_routes(*v);
	struct flow *f = o->flow;
	/* Linux 6.1 minds that clang reads r before it asks routed. */
	struct tc_route r = {};

	if (routed) {
		*v = nat_ttl(p) <= 1 ? VERDICT_TTL_EXPIRED : tc_route(skb, p, o, &r, *v);
		if (*v == VERDICT_TTL_EXPIRED || *v == VERDICT_TOO_BIG || *v == VERDICT_NO_ROUTE)
			return uplink_unsent(skb, p, &r, hook, v);
	}
	count_packet(o, *v, tc_len(skb, p));
	if (tc_rewrite(skb, p, f, routed)) {
		*v = VERDICT_REWRITE_FAILED;
		return TC_DROP;
	}
	if (!flow_is_of(f, &p->seg.key)) {
		*v = VERDICT_FLOW_CONFLICT;
		return TC_DROP;
	}
	if (hook_is_egress(hook) && f->flags & FLOW_REROUTE)
		return tc_reroute(skb, p, f);
	if (!routed || r.local) {
		if (!hook_is_egress(hook))
			skb->tc_index = TC_SEEN;
		return TC_NEXT;
	}
	skb->tc_index = TC_SENT;
	if (r.stack)
		return tc_to_stack(skb, !p->l2);
	if (r.neigh) {
		struct bpf_fib_lookup *fib = fib_scratch_get();

		return fib ? tc_send_neigh(skb, !p->l2, fib) : TC_DROP;
	}
	return bpf_redirect(r.hop.ifindex, 0);
}

/*
 * At a pod's link nothing is routed: the stack takes the packet on as it does
 * any other of the pod. But what the pod sends to itself would not come back.
 */
static __always_inline int link_translate(struct __sk_buff *skb, struct packet *p,
					  struct outcome *o, enum verdict *v)
{
	bool hairpin = o->flow->flags & FLOW_HAIRPIN;

	count_packet(o, *v, tc_len(skb, p));
	if (hairpin) {
		*v = o->flow->flags & FLOW_REVERSE ? VERDICT_REPLY_HAIRPIN : VERDICT_HAIRPIN;
		if (p->l2) /* there is one on all such devices */
			eth_turn(p->l2);
	}
	if (tc_rewrite(skb, p, o->flow, false)) {
		*v = VERDICT_REWRITE_FAILED;
		return TC_DROP;
	}
	if (!flow_is_of(o->flow, &p->seg.key)) {
		*v = VERDICT_FLOW_CONFLICT;
		return TC_DROP;
	}
	return hairpin ? bpf_redirect(skb->ifindex, 0) : TC_NEXT;
}

/* hook is a constant where this is compiled: one of the two is left. */
static __always_inline int tc_translate(struct __sk_buff *skb, struct packet *p, struct outcome *o,
					enum hook hook, enum verdict *v)
{
	if (hook_is_pod(hook))
		return link_translate(skb, p, o, v);
	return uplink_translate(skb, p, o, hook, v);
}

static __always_inline bool tc_is_icmp(const struct packet *p)
{
	return p->seg.key.proto == IPPROTO_ICMP || p->seg.key.proto == IPPROTO_ICMPV6;
}

static __always_inline int tc_special(struct __sk_buff *skb, enum hook hook, const struct packet *p,
				      enum verdict v)
{
	if (v == VERDICT_FRAGMENT)
		return fragment(skb, hook, p->l3_off);
	return v == VERDICT_NOT_L4 && tc_is_icmp(p) ? related(skb, hook, p->l3_off) : TC_UNHANDLED;
}

/*
 * Parse the packet, or have it dealt with otherwise: then what is returned is
 * the action, and its verdict is counted. TC_UNHANDLED: *v is what is known of p.
 */
static __always_inline int tc_receive(struct __sk_buff *skb, enum hook hook, struct packet *p,
				      enum verdict *v)
{
	int handled;

	*v = tc_parse(skb, hook, p);
	if (*v == VERDICT_NONE)
		return TC_UNHANDLED;
	handled = tc_special(skb, hook, p, *v);
	if (handled != TC_FIRST_FRAGMENT)
		return handled;
	*v = parse_first((void *)(long)skb->data, (void *)(long)skb->data_end, p);
	return TC_UNHANDLED;
}

/* A packet of another protocol: it is not balanced, but may be to a Service's address. */
static __always_inline int tc_other(struct __sk_buff *skb, struct packet *p, struct outcome *o,
				    enum verdict *v)
{
	if (*v == VERDICT_ECHO)
		return TC_REDIRECT;
	if (verdict_refuses(*v))
		return tc_refuse(skb, p, o, v);
	return verdict_passes(*v) ? TC_NEXT : TC_DROP;
}

/* As ways_ask_xdp(). */
__noinline int ways_ask_skb(struct __sk_buff *skb, const struct segment *s)
{
	return ways_ask(skb, s);
}

static __always_inline enum verdict tc_begin(struct __sk_buff *skb, struct packet *p,
					     struct outcome *o, enum hook hook)
{
	enum verdict v = core_begin(p, o, skb->ifindex);

	if (!hook_is_pod(hook) && v == VERDICT_WAY_WANTED) {
		ways_ask_skb(skb, &p->seg);
		v = begin_flow(&p->seg, o->frontend);
	}
	return core_begun(o, v);
}

/* What the core makes of a packet, with what others on the node know of it. */
static __always_inline enum verdict tc_decide(struct __sk_buff *skb, struct packet *p,
					      struct outcome *o, enum hook hook)
{
	enum verdict v = core_ingress(skb, p, o, hook);

	if (core_asks(p, o, v) && known_skb(skb, &p->seg))
		return VERDICT_NOT_SERVICE;
	/* The middle of a connection to nobody does not go on for long. */
	if (hook == HOOK_TC_INGRESS && v == VERDICT_NOT_SERVICE &&
	    (p->seg.key.proto == IPPROTO_UDP || segment_opens(&p->seg)))
		return circle_verdict(skb, &p->seg);
	return v == VERDICT_NONE ? tc_begin(skb, p, o, hook) : v;
}

/* Do with a packet what has been decided. */
static __always_inline int tc_carry_out(struct __sk_buff *skb, struct packet *p, struct outcome *o,
					enum hook hook, enum verdict *v)
{
	if (core_translates(o, *v))
		return tc_translate(skb, p, o, hook, v);
	if (hook == HOOK_TC_INGRESS && *v == VERDICT_PASSED_ON) {
		int action = p->l2 && !p->vlans ? pass_on(skb, p->l3_off) : TC_UNHANDLED;

		if (action != TC_UNHANDLED) {
			skb->tc_index = TC_SENT;
			return action;
		}
		*v = VERDICT_NO_FLOW;
	}
	if (verdict_refuses(*v))
		return tc_refuse(skb, p, o, v);
	return verdict_passes(*v) ? TC_NEXT : TC_DROP;
}

/* One packet at a hook of TC. */
static __always_inline int tc_handle(struct __sk_buff *skb, enum hook hook)
{
	int action = TC_NEXT;
	struct outcome o;
	struct packet p;
	enum verdict v;
	int handled;

	/* Sent on here: it is nobody's connection to be looked at once more, see guest.h. */
	if (hook == HOOK_TC_EGRESS && skb->tc_index == TC_SENT) {
		count_verdict(hook, VERDICT_NOT_SERVICE);
		return TC_NEXT;
	}
	if (hook == HOOK_TC_INGRESS && skb->tc_index == TC_SEEN)
		return TC_NEXT;
	/* Here, because fragments, errors and pings are answered without core_ingress(). */
	if (hook == HOOK_TC_INGRESS && frame_foreign_skb(skb)) {
		count_verdict(hook, VERDICT_NOT_OURS);
		return TC_NEXT;
	}
	core_init(&o);
	o.ifindex = skb->ifindex;
	handled = tc_receive(skb, hook, &p, &v);
	if (handled != TC_UNHANDLED)
		return handled;
	if (v == VERDICT_NONE) {
		v = hook_is_egress(hook) ? core_egress(&p, &o, hook) : tc_decide(skb, &p, &o, hook);
		action = tc_carry_out(skb, &p, &o, hook, &v);
	} else if (v == VERDICT_NOT_L4 && !hook_is_egress(hook)) {
		v = other_verdict(skb, hook);
		action = tc_other(skb, &p, &o, &v);
	}
	count_verdict(hook, v);
	return action;
}

#endif
