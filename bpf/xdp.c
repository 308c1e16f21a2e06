//go:build ignore

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Uplinks, without an skb. What this cannot finish it leaves untouched to tc.c on the same device.
 */
#include "core.h"
#include "fib.h"
#include "limit.h"
#include "sctp.h"

#define VLAN_ID_MASK 0x0fff
#define VLAN_NO_ID   0x0fff /* reserved (IEEE 802.1Q) */

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
	__u16 id;

	if (!p->vlans)
		return 0;
	if (p->vlans != 1 || (void *)(tag + 1) > p->end)
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

/* Resolve the route of a flow for XDP; false: TC has to. */
static __always_inline bool xdp_resolve(struct xdp_md *ctx, struct packet *p, struct flow *f,
					__u16 tag)
{
	struct bpf_fib_lookup *fib = fib_room();
	__u32 ifindex;

	if (!fib ||
	    fib_ask(ctx, ctx->ingress_ifindex, p, f, p->len, fib) != BPF_FIB_LKUP_RET_SUCCESS)
		return false;
	ifindex = xdp_device(ctx, tag, fib->ifindex);
	if (!ifindex) {
		f->route = ROUTE_NOT_XDP;
		return false;
	}
	fib_remember(f, fib, ifindex,
		     tag ? tag << ROUTE_TAG_SHIFT | ROUTE_XDP : ROUTE_XDP | ROUTE_TC);
	return true;
}

/* A resolved route, from the flow or from the kernel; false: leave it to TC. */
static __always_inline bool xdp_route(struct xdp_md *ctx, struct packet *p, struct outcome *o)
{
	struct flow *f = o->flow;
	__u16 tag = xdp_tag(p);
	bool shared = !tag && route_shared(f, o->fresh);

	if (shared)
		route_recall(f, ctx->ingress_ifindex);
	if (o->confirm || f->route & ROUTE_NOT_XDP)
		return false;
	if (!(f->route & ROUTE_XDP) || f->route >> ROUTE_TAG_SHIFT != tag) {
		if (!xdp_resolve(ctx, p, f, tag))
			return false;
		if (shared)
			route_keep(f, ctx->ingress_ifindex);
	}
	return p->len <= f->mtu;
}

static __always_inline int xdp_translate(struct xdp_md *ctx, struct packet *p, struct outcome *o,
					 enum verdict *v)
{
	bool routed = verdict_routes(*v);
	struct flow *f = o->flow;

	if (routed && (nat_ttl(p) <= 1 || !xdp_route(ctx, p, o))) {
		*v = VERDICT_LEFT_TO_TC;
		return XDP_PASS;
	}
	if (!nat_headers(p, f, routed) || !xdp_fix_l4(p, f)) {
		*v = VERDICT_REWRITE_FAILED;
		return XDP_DROP;
	}
	count_packet(o, *v, p->len);
	if (!routed)
		return XDP_PASS;
	fib_write_eth(p, f);
	if (f->ifindex == ctx->ingress_ifindex)
		return XDP_TX;
	return bpf_redirect(f->ifindex, 0);
}

/* TC makes the answer. What it would not answer shall not cost an skb. */
static __always_inline int xdp_refuse(enum verdict *v)
{
	if (!answer_allowed()) {
		*v = VERDICT_REJECT_LIMITED;
		return XDP_DROP;
	}
	*v = VERDICT_LEFT_TO_TC;
	return XDP_PASS;
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
		v = core_ingress(&p, &o, HOOK_XDP);
		if (core_translates(&o, v))
			action = xdp_translate(ctx, &p, &o, &v);
		else if (verdict_refuses(v))
			action = xdp_refuse(&v);
		else if (!verdict_passes(v))
			action = XDP_DROP;
	}
	count_verdict(HOOK_XDP, v);
	return action;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
