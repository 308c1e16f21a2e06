/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Carries out what the core decided, with an skb.
 *
 * Every exit but drop and redirect is TC_NEXT, so that other programs on the
 * device run (TCX_NEXT and TC_ACT_UNSPEC are the same number).
 */
#ifndef EBB_CTX_SKB_H
#define EBB_CTX_SKB_H

#include "core.h"
#include "fib.h"
#include "sctp.h"

#define TC_NEXT     -1
#define TC_DROP     2
#define TC_REDIRECT 7
#define PULL_BYTES  128 /* headers the parser may look at */

/* What reject() returns instead of one of the above, if it has answered too much already. */
#define REJECT_LIMITED -2

#define GSO_BY_FRAGS 0xffff /* SCTP: segments of any size */

/* What the TTL's decrement does to the sum of an IPv6 header. */
#define HOP_DIFF 0xfffe

/*
 * IPv6 has no header checksum to balance the addresses in a sum the NIC made.
 * Refused, and not needed, for other skbs.
 */
static __always_inline void tc_fix_sum(struct __sk_buff *skb, const struct packet *p,
				       const struct flow *f, bool routed)
{
	if (!p->seg.v4)
		bpf_csum_update(skb, f->csum_addr + (routed ? bpf_htons(HOP_DIFF) : 0));
}

/*
 * The helpers know whether the checksum is finished, partial (local senders,
 * veth) or the NIC's; they reckon with a header checksum, see tc_fix_sum().
 * Addresses are in the pseudo header, ports are not.
 */
static __always_inline long tc_fix_l4(struct __sk_buff *skb, const struct packet *p,
				      const struct flow *f, bool routed, __u32 check, __u64 mangled)
{
	__u32 off = p->l4_off + check;
	long err;

	err = bpf_l4_csum_replace(skb, off, 0, f->csum_addr, BPF_F_PSEUDO_HDR | mangled);
	if (!err && f->csum_port)
		err = bpf_l4_csum_replace(skb, off, 0, f->csum_port, mangled);
	tc_fix_sum(skb, p, f, routed);
	return err;
}

/*
 * Is a checksum of zero one that is still to be made? The kernel makes it over
 * a field of zero (skb_crc32c_csum_help), which therefore must stay. What the
 * helper below refuses to touch is such a one; else it leaves its mark.
 */
static __always_inline bool tc_sctp_unfinished(struct __sk_buff *skb, __u32 off)
{
	__u16 mark = 0;

	bpf_l4_csum_replace(skb, off, 0, 1, sizeof(mark));
	return !bpf_skb_load_bytes(skb, off, &mark, sizeof(mark)) && !mark;
}

/* Change the checksum at off, and what the ports and it add to a sum the NIC made. */
__noinline int tc_sctp_check(struct __sk_buff *skb, __u32 off, __u32 change, __u16 ports)
{
	__u32 check, was;

	if (bpf_skb_load_bytes(skb, off, &check, sizeof(check)))
		return -1;
	if (!check && tc_sctp_unfinished(skb, off))
		return 0;
	was = check;
	check ^= change;
	bpf_csum_update(skb, csum_fold((__u64)(__u32)~was + check + ports));
	return bpf_skb_store_bytes(skb, off, &check, sizeof(check), 0);
}

static __always_inline long tc_fix_sctp(struct __sk_buff *skb, const struct packet *p,
					const struct flow *f, bool routed)
{
	__u32 change = sctp_change(p, f);

	tc_fix_sum(skb, p, f, routed);
	return change ? tc_sctp_check(skb, p->l4_off + SCTP_CHECK, change, f->csum_port) : 0;
}

/* Layer 3 bytes of all. */
static __always_inline __u32 tc_len(const struct __sk_buff *skb, const struct packet *p)
{
	return p->len == LEN_MOST ? skb->len - p->l3_off : p->len;
}

/* Layer 3 bytes of one packet on the wire, also where the skb stands for several. */
static __always_inline __u32 tc_wire_len(const struct __sk_buff *skb, const struct packet *p)
{
	__u32 header = p->l4_off - p->l3_off;

	if (skb->gso_segs <= 1 || !skb->gso_size)
		return p->len;
	/* Cut where its sender has put the pieces together: none is larger than its route takes. */
	if (skb->gso_size == GSO_BY_FRAGS)
		return header;
	/* BIG TCP has a header between IPv6 and TCP that is left out when it is cut. */
	if (tc_len(skb, p) > LEN_MOST && !p->seg.v4)
		header = sizeof(struct ipv6_hdr);
	if (p->seg.key.proto == IPPROTO_TCP)
		header += p->tcp_header;
	else
		header += sizeof(struct udp_hdr);
	return header + skb->gso_size;
}

/*
 * Does the program see the packet without its Ethernet header? Linux 6.9 and
 * later copy packets for generic XDP and forget the header's length over it
 * (skb_pp_cow_data, skb->mac_len), so TC programs on the same device find
 * the IP header where Ethernet should be.
 */
static __always_inline bool tc_bare(struct __sk_buff *skb, struct eth_hdr *mac)
{
	struct eth_hdr *eth = (void *)(long)skb->data;

	if ((void *)(eth + 1) > (void *)(long)skb->data_end)
		return false;
	if (bpf_skb_load_bytes_relative(skb, 0, mac, sizeof(*mac), BPF_HDR_START_MAC))
		return false;
	return __builtin_memcmp(eth, mac, sizeof(*mac));
}

/* Give a bare packet its Ethernet header back, once it is not for the stack any more. */
static __always_inline long tc_dress(struct __sk_buff *skb, bool bare)
{
	struct eth_hdr mac;

	if (!bare)
		return 0;
	if (bpf_skb_load_bytes_relative(skb, 0, &mac, sizeof(mac), BPF_HDR_START_MAC) ||
	    bpf_skb_change_head(skb, sizeof(mac), 0))
		return -1;
	return bpf_skb_store_bytes(skb, 0, &mac, sizeof(mac), 0);
}

/* Made in reject.h, which parses the packet again: the stack is short, and this is rare. */
int reject(struct __sk_buff *skb, __u32 v, __u32 mtu);
int stray_verdict(struct __sk_buff *skb);

/* Tell the sender why its packet goes no further. */
static __always_inline int tc_answer(struct __sk_buff *skb, enum verdict v, __u32 mtu)
{
	int action = reject(skb, v, mtu);

	return action == REJECT_LIMITED ? TC_DROP : action;
}

/* The same for what is refused: beyond the limit, that is a verdict of its own. */
static __always_inline int tc_refuse(struct __sk_buff *skb, struct packet *p, struct outcome *o,
				     enum verdict *v)
{
	int action;

	if (*v == VERDICT_BACKEND_GONE && o->flow)
		flow_abort(&p->seg.key, o->flow);
	action = reject(skb, *v, 0);
	if (action != REJECT_LIMITED)
		return action;
	*v = VERDICT_REJECT_LIMITED;
	return TC_DROP;
}

/* How a packet that ebb routes is to leave. */
struct tc_route {
	struct bpf_fib_lookup *fib; /* NULL: by flow->ifindex and its MAC addresses */
	__u32 mtu;
	bool local;  /* to this node after all */
	bool plain;  /* an Ethernet header and no tags: the route can be remembered */
	bool shared; /* ... and by other flows to the same backend used */
};

static __always_inline enum verdict tc_resolve(struct __sk_buff *skb, struct packet *p,
					       struct flow *f, struct tc_route *r, __u32 bytes,
					       enum verdict v)
{
	struct bpf_fib_lookup *fib = fib_room();
	long err;

	if (!fib)
		return VERDICT_NO_ROUTE;
	err = fib_ask(skb, skb->ifindex, p, f, bytes, fib);
	r->fib = fib;
	r->mtu = fib->mtu_result;
	if (err == BPF_FIB_LKUP_RET_FRAG_NEEDED)
		return VERDICT_TOO_BIG;
	if (err == BPF_FIB_LKUP_RET_NOT_FWDED && v == VERDICT_REPLY_REMOTE) {
		r->local = true;
		return v;
	}
	if (err == BPF_FIB_LKUP_RET_NO_NEIGH)
		return v;
	if (err != BPF_FIB_LKUP_RET_SUCCESS)
		return VERDICT_NO_ROUTE;
	if (r->plain)
		fib_remember(f, fib, fib->ifindex, (f->route & ROUTE_NOT_XDP) | ROUTE_TC);
	return v;
}

static __always_inline enum verdict tc_route(struct __sk_buff *skb, struct packet *p,
					     struct outcome *o, struct tc_route *r, enum verdict v)
{
	struct flow *f = o->flow;
	__u32 bytes = tc_wire_len(skb, p);

	r->plain = p->l2 && !p->vlans && !skb->vlan_present;
	r->shared = r->plain && route_shared(f, o->fresh);
	if (r->shared)
		route_recall(f, skb->ifindex);
	if (!r->plain || !(f->route & ROUTE_TC)) {
		v = tc_resolve(skb, p, f, r, bytes, v);
		if (r->shared && f->route & ROUTE_TC)
			route_keep(f, skb->ifindex);
		return v;
	}
	r->mtu = f->mtu;
	return bytes <= f->mtu ? v : VERDICT_TOO_BIG;
}

/*
 * Through the kernel's neighbour code, which resolves and confirms. The next
 * hop is written over the answer it comes from.
 */
static __always_inline int tc_send_neigh(struct __sk_buff *skb, bool bare,
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
	if (tc_dress(skb, bare))
		return TC_DROP;
	return bpf_redirect_neigh(ifindex, nh, sizeof(*nh), 0);
}

static __always_inline long tc_rewrite(struct __sk_buff *skb, struct packet *p,
				       const struct flow *f, bool routed)
{
	if (!nat_headers(p, f, routed))
		return -1;
	if (p->seg.key.proto == IPPROTO_TCP)
		return tc_fix_l4(skb, p, f, routed, __builtin_offsetof(struct tcp_hdr, check), 0);
	if (p->seg.key.proto == IPPROTO_SCTP)
		return tc_fix_sctp(skb, p, f, routed);
	if (!((struct udp_hdr *)p->l4)->check)
		return 0;
	return tc_fix_l4(skb, p, f, routed, __builtin_offsetof(struct udp_hdr, check),
			 BPF_F_MARK_MANGLED_0);
}

static __always_inline int tc_translate(struct __sk_buff *skb, struct packet *p, struct outcome *o,
					enum verdict *v)
{
	bool routed = verdict_routes(*v);
	struct flow *f = o->flow;
	/* Linux 6.1 minds that clang reads r before it asks routed. */
	struct tc_route r = {};

	if (routed) {
		*v = nat_ttl(p) <= 1 ? VERDICT_TTL_EXPIRED : tc_route(skb, p, o, &r, *v);
		if (*v == VERDICT_TTL_EXPIRED || *v == VERDICT_TOO_BIG)
			return tc_answer(skb, *v, *v == VERDICT_TOO_BIG ? r.mtu : 0);
		if (*v == VERDICT_NO_ROUTE)
			return TC_DROP;
		if (!r.fib)
			fib_write_eth(p, f);
	}
	count_packet(o, *v, tc_len(skb, p));
	if (tc_rewrite(skb, p, f, routed)) {
		*v = VERDICT_REWRITE_FAILED;
		return TC_DROP;
	}
	if (!routed || r.local)
		return TC_NEXT;
	if (r.fib)
		return tc_send_neigh(skb, !p->l2, r.fib);
	return bpf_redirect(f->ifindex, 0);
}

/* Make sure the headers are where direct access finds them. */
static __always_inline void tc_pull(struct __sk_buff *skb)
{
	__u32 bytes = skb->len < PULL_BYTES ? skb->len : PULL_BYTES;

	if ((void *)(long)skb->data + bytes > (void *)(long)skb->data_end)
		bpf_skb_pull_data(skb, bytes);
}

static __always_inline enum verdict tc_parse(struct __sk_buff *skb, enum hook hook,
					     struct packet *p)
{
	void *data_end, *data;
	bool bare = false;

	tc_pull(skb);
	if (cfg_xdp_generic && hook == HOOK_TC_INGRESS) {
		struct eth_hdr mac;

		bare = tc_bare(skb, &mac);
	}
	data_end = (void *)(long)skb->data_end;
	data = (void *)(long)skb->data;
	return bare ? parse_bare(data, data_end, skb->len, skb->protocol, p)
		    : parse_packet(data, data_end, skb->len, p);
}

/*
 * What is no packet of a flow but may have to do with one, in headers of their
 * own. They return an action, the verdict counted, or one of these.
 */
#define RARE_NONE  100 /* none of ebb's business */
#define RARE_FIRST 101 /* a first fragment, to be treated as a packet */

int related(struct __sk_buff *skb, __u32 hook, __u32 l3_off);
int fragment(struct __sk_buff *skb, __u32 hook, __u32 l3_off);

static __always_inline bool tc_is_icmp(const struct packet *p)
{
	return p->seg.key.proto == IPPROTO_ICMP || p->seg.key.proto == IPPROTO_ICMPV6;
}

static __always_inline int tc_rare(struct __sk_buff *skb, enum hook hook, const struct packet *p,
				   enum verdict v)
{
	if (v == VERDICT_FRAGMENT)
		return fragment(skb, hook, p->l3_off);
	return v == VERDICT_NOT_L4 && tc_is_icmp(p) ? related(skb, hook, p->l3_off) : RARE_NONE;
}

/*
 * Parse the packet, or have it dealt with otherwise: then what is returned is
 * the action, and its verdict is counted. RARE_NONE: *v is what is known of p.
 */
static __always_inline int tc_receive(struct __sk_buff *skb, enum hook hook, struct packet *p,
				      enum verdict *v)
{
	int rare;

	*v = tc_parse(skb, hook, p);
	if (*v == VERDICT_NONE)
		return RARE_NONE;
	rare = tc_rare(skb, hook, p, *v);
	if (rare != RARE_FIRST)
		return rare;
	*v = parse_first((void *)(long)skb->data, (void *)(long)skb->data_end, p);
	return RARE_NONE;
}

/* A packet of another protocol: nobody balances it, but it may be to a Service's address. */
static __always_inline int tc_stray(struct __sk_buff *skb, struct packet *p, struct outcome *o,
				    enum verdict *v)
{
	if (*v == VERDICT_ECHO)
		return TC_REDIRECT;
	if (verdict_refuses(*v))
		return tc_refuse(skb, p, o, v);
	return verdict_passes(*v) ? TC_NEXT : TC_DROP;
}

static __always_inline int tc_handle(struct __sk_buff *skb, enum hook hook)
{
	int action = TC_NEXT;
	struct outcome o;
	struct packet p;
	enum verdict v;
	int rare;

	core_init(&o);
	rare = tc_receive(skb, hook, &p, &v);
	if (rare != RARE_NONE)
		return rare;
	if (v == VERDICT_NONE) {
		v = hook == HOOK_TC_EGRESS ? core_egress(&p, &o, hook) : core_ingress(&p, &o, hook);
		if (core_translates(&o, v))
			action = tc_translate(skb, &p, &o, &v);
		else if (verdict_refuses(v))
			action = tc_refuse(skb, &p, &o, &v);
		else if (!verdict_passes(v))
			action = TC_DROP;
	} else if (v == VERDICT_NOT_L4 && hook == HOOK_TC_INGRESS) {
		v = stray_verdict(skb);
		action = tc_stray(skb, &p, &o, &v);
	}
	count_verdict(hook, v);
	return action;
}

#endif
