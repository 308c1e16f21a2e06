//go:build ignore

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Uplinks, without an skb. What this cannot finish it leaves untouched to tc.c on the same device.
 */
#include "wire/nat.h"
#include "wire/sctp.h"
#include "route/fib.h"
#include "flow/decide.h"
#include "flow/limit.h"
#include "skb/known.h"

static __always_inline bool xdp_fix_l4(struct packet *p, const struct flow *f)
{
	__u32 diff = f->csum_addr + f->csum_port;

	if (p->seg.key.proto == IPPROTO_TCP) {
		struct tcp_hdr *tcp = p->l4;

		if ((void *)(tcp + 1) > p->end)
			return false;
		tcp->check = csum_apply(tcp->check, diff);
	} else if (p->seg.key.proto == IPPROTO_SCTP) {
		struct sctp_hdr *sctp = p->l4;

		if ((void *)(sctp + 1) > p->end)
			return false;
		sctp->check ^= sctp_change(p, f);
	} else {
		struct udp_hdr *udp = p->l4;
		__u16 check = udp->check;

		/* Zero is "no checksum"; a computed zero is written as 0xffff (RFC 768). */
		if (check) {
			check = csum_apply(check, diff);
			udp->check = check ? check : 0xffff;
		}
	}
	return true;
}

/* The tag of p, which stays as it is: 0 for none, VLAN_NO_ID if no device can have it. */
static __always_inline __u16 xdp_tag(const struct packet *p)
{
	struct vlan_hdr *tag = p->l2 + sizeof(struct eth_hdr);
	struct eth_hdr *eth = p->l2;
	__u16 id;

	if (!p->vlans)
		return 0;
	if (p->vlans != 1 || (void *)(tag + 1) > p->end || eth->proto != bpf_htons(ETH_P_8021Q))
		return VLAN_NO_ID;
	id = bpf_ntohs(tag->tci) & VLAN_ID_MASK;
	return id ? id : VLAN_NO_ID;
}

/* The device XDP may transmit packets with this tag by, or 0. */
static __always_inline __u32 xdp_device(struct xdp_md *ctx, __u16 tag, __u32 ifindex)
{
	struct device *d;

	if (ifindex == ctx->ingress_ifindex && !tag)
		return ifindex;
	d = bpf_map_lookup_elem(&devices, &ifindex);
	if (!d || !(d->flags & DEVICE_XDP_TX))
		return 0;
	if (!d->lower)
		return tag ? 0 : ifindex;
	return tag == d->vlan_id && d->lower == ctx->ingress_ifindex ? d->lower : 0;
}

/*
 * Whether p may be left to TC although XDP could send it. A SYN and its answer have
 * no packet behind them that could overtake. A connection whose packets get lost ends up repeating
 * one packet after a pause, so what comes after a pause will do for the rest of TCP and SCTP.
 * Datagrams do not stop when they get lost, but bear being overtaken.
 */
static __always_inline bool xdp_may_leave(const struct packet *p, const struct outcome *o)
{
	return p->seg.key.proto == IPPROTO_UDP || p->seg.tcp_flags & TCP_SYN || o->resumed;
}

/* Ask the kernel for the route of a flow; false: TC has to. */
static __always_inline bool xdp_resolve(struct xdp_md *ctx, const struct route_query *q,
					struct flow *f, struct next_hop *hop)
{
	struct bpf_fib_lookup *fib = fib_scratch_get();
	__u32 ifindex = 0;
	long err;

	if (!fib)
		return false;
	err = fib_ask(ctx, ctx->ingress_ifindex, q, f, fib);
	if (err == BPF_FIB_LKUP_RET_SUCCESS)
		ifindex = xdp_device(ctx, q->tag, fib->ifindex);
	else if (err != FIB_TO_STACK)
		return false;
	if (!ifindex) {
		f->route = ROUTE_NOT_XDP;
		return false;
	}
	if (neighbour_due(fib) && q->may_leave)
		return false;
	next_hop_of(fib, ifindex,
		    q->tag ? q->tag << ROUTE_TAG_SHIFT | ROUTE_XDP : ROUTE_XDP | ROUTE_TC, hop);
	return true;
}

/*
 * The route of a flow that has none, from others or from the kernel; 0: TC has
 * to. Not inlined, so that the verifier does not look at all behind it once more.
 */
__noinline int xdp_find(struct xdp_md *ctx, const struct route_query *q, struct flow *f,
			struct next_hop *hop)
{
	struct next_hop *known = NULL;
	bool shared;

	if (!q || !f || !hop)
		return 0;
	shared = route_shared(q, f);
	if (shared)
		known = route_recall(f, ctx->ingress_ifindex);
	if (known) {
		*hop = *known;
	} else {
		if (!xdp_resolve(ctx, q, f, hop))
			return 0;
		if (shared)
			route_keep(f, ctx->ingress_ifindex, hop);
	}
	if (!q->fresh)
		route_remember(f, hop);
	return 1;
}

/* Write the frame's header for the next hop. Returns the device; 0: leave p to TC, untouched. */
static __always_inline __u32 xdp_route(struct xdp_md *ctx, struct packet *p, struct outcome *o)
{
	struct flow *f = o->flow;
	struct route_query q = {};
	struct next_hop hop = {};
	__u32 ifindex;

	q.tag = xdp_tag(p);
	if (f->route & ROUTE_NOT_XDP)
		return 0;
	if (route_known(f, ROUTE_XDP, &ifindex) && f->route >> ROUTE_TAG_SHIFT == q.tag) {
		if (p->len > f->mtu)
			return 0;
		route_write_eth(p, f);
		return ifindex;
	}
	route_query_of(p, p->len, &q);
	q.fresh = o->fresh;
	q.cacheable = !q.tag;
	q.may_leave = xdp_may_leave(p, o);
	if (!xdp_find(ctx, &q, f, &hop) || p->len > hop.mtu)
		return 0;
	next_hop_write_eth(p, &hop);
	return hop.ifindex;
}

static __always_inline int xdp_translate(struct xdp_md *ctx, struct packet *p, struct outcome *o,
					 enum verdict *v)
{
	bool routed = verdict_routes(*v);
	struct flow *f = o->flow;
	__u32 ifindex = 0;

	if (routed && nat_ttl(p) > 1)
		ifindex = xdp_route(ctx, p, o);
	/* TC would take the answer to a guest for one to the flow whose port it had, see guest.h.
	 */
	if (routed ? !ifindex : f->flags & FLOW_OUTWARD) {
		*v = VERDICT_LEFT_TO_TC;
		return XDP_PASS;
	}
	if (!nat_headers(p, f, routed) || !xdp_fix_l4(p, f)) {
		*v = VERDICT_REWRITE_FAILED;
		return XDP_DROP;
	}
	if (!flow_is_of(f, &p->seg.key)) {
		*v = VERDICT_FLOW_CONFLICT;
		return XDP_DROP;
	}
	count_packet(o, *v, p->len);
	if (!routed)
		return XDP_PASS;
	if (ifindex == ctx->ingress_ifindex)
		return XDP_TX;
	return bpf_redirect(ifindex, 0);
}

/* TC makes the answer. What it would not answer shall not cost an skb. */
static __always_inline int xdp_refuse(const struct packet *p, enum verdict *v)
{
	if (p->seg.tcp_flags & TCP_RST)
		return XDP_DROP;
	if (!answer_allowed()) {
		*v = VERDICT_REJECT_LIMITED;
		return XDP_DROP;
	}
	*v = VERDICT_LEFT_TO_TC;
	return XDP_PASS;
}

/* TC asks for the way. As xdp_refuse(), but what has gone that way before is not counted. */
static __always_inline int xdp_pass_on(enum verdict *v)
{
	struct halves *room = halves_room();

	if (room && (room->passed || answer_allowed())) {
		*v = VERDICT_LEFT_TO_TC;
		return XDP_PASS;
	}
	*v = VERDICT_REJECT_LIMITED;
	return XDP_DROP;
}

/* Global functions, because their stack is then their own. */
__noinline int ways_ask_xdp(struct xdp_md *ctx, const struct segment *s)
{
	return ways_ask(ctx, s);
}

static __always_inline enum verdict xdp_begin(struct xdp_md *ctx, struct packet *p,
					      struct outcome *o)
{
	enum verdict v = core_begin(p, o, ctx->ingress_ifindex);

	if (v == VERDICT_WAY_WANTED) {
		ways_ask_xdp(ctx, &p->seg);
		v = begin_flow(&p->seg, o->frontend);
	}
	return core_begun(o, v);
}

SEC("xdp.frags")
int ebb_xdp(struct xdp_md *ctx)
{
	void *data_end = (void *)(long)ctx->data_end;
	void *data = (void *)(long)ctx->data;
	int action = XDP_PASS;
	struct outcome o;
	struct packet p;
	enum verdict v;

	core_init(&o);
	v = parse_packet(data, data_end, 0, &p);
	if (v == VERDICT_NONE) {
		v = core_ingress(ctx, &p, &o, HOOK_XDP);
		if (core_asks(&p, &o, v) && known_xdp(ctx, &p.seg))
			v = VERDICT_NOT_SERVICE;
		else if (v == VERDICT_NONE)
			v = xdp_begin(ctx, &p, &o);
		if (core_translates(&o, v))
			action = xdp_translate(ctx, &p, &o, &v);
		else if (verdict_refuses(v))
			action = xdp_refuse(&p, &v);
		else if (v == VERDICT_PASSED_ON)
			action = xdp_pass_on(&v);
		else if (!verdict_passes(v))
			action = XDP_DROP;
	}
	count_verdict(HOOK_XDP, v);
	return action;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
