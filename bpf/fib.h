/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Where a packet goes that ebb routes itself: the kernel's table, remembered in the flow for a
 * tick. */
#ifndef EBB_FIB_H
#define EBB_FIB_H

#include "conntrack.h"
#include "nat.h"

/*
 * Room for one question, because the stack is short (512 bytes over all
 * calls). Programs on a CPU do not interrupt each other between asking and
 * using the answer: they run with bottom halves off.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct bpf_fib_lookup);
} fib_scratch SEC(".maps");

static __always_inline struct bpf_fib_lookup *fib_room(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&fib_scratch, &zero);
}

/* Ask for the way of p as it will be after f's rewrite. bytes: layer 3, of one packet on the wire.
 */
static __always_inline long fib_ask(void *ctx, __u32 ingress, const struct packet *p,
				    const struct flow *f, __u32 bytes, struct bpf_fib_lookup *fib)
{
	__builtin_memset(fib, 0, sizeof(*fib));
	fib->l4_protocol = p->seg.key.proto;
	fib->sport = f->sport;
	fib->dport = f->dport;
	fib->tot_len = bytes;
	fib->ifindex = ingress;
	if (p->seg.v4) {
		fib->family = AF_INET;
		fib->tos = ((struct ipv4_hdr *)p->l3)->tos;
		fib->ipv4_src = f->src.w[3];
		fib->ipv4_dst = f->dst.w[3];
	} else {
		fib->family = AF_INET6;
		fib->flowinfo = *(__be32 *)p->l3 & bpf_htonl(0x0fffffff);
		__builtin_memcpy(fib->ipv6_src, f->src.b, 16);
		__builtin_memcpy(fib->ipv6_dst, f->dst.b, 16);
	}
	return bpf_fib_lookup(ctx, fib, sizeof(*fib), 0);
}

static __always_inline void fib_remember(struct flow *f, const struct bpf_fib_lookup *fib,
					 __u32 ifindex, __u16 who)
{
	f->ifindex = ifindex;
	f->mtu = fib->mtu_result;
	__builtin_memcpy((__u8 *)f->macs, fib->dmac, 6);
	__builtin_memcpy((__u8 *)f->macs + 6, fib->smac, 6);
	f->route = who;
}

/*
 * The last route to a backend on another node, per CPU and for a tick, for the
 * first packets of flows: they have no entry yet that could remember one, and
 * asking the kernel would be a third of what a SYN costs. Backends share
 * entries; a flow that is established asks for itself, so multipath routes
 * spread flows as the kernel does.
 */
#define ROUTE_CACHE 1024

struct backend_route {
	__u32 backend;
	__u32 generation;
	__u32 tick;
	__u32 ingress;
	__u32 ifindex;
	__u32 macs[3];
	__u16 mtu;
	__u16 route;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, ROUTE_CACHE);
	__type(key, __u32);
	__type(value, struct backend_route);
} backend_routes SEC(".maps");

static __always_inline struct backend_route *route_entry(const struct flow *f)
{
	__u32 key = f->backend % ROUTE_CACHE;

	return bpf_map_lookup_elem(&backend_routes, &key);
}

/* Give the new flow f the route that others to its backend had just now. */
static __always_inline void route_recall(struct flow *f, __u32 ingress)
{
	struct backend_route *r = route_entry(f);

	if (!r || r->backend != f->backend || r->generation != f->generation ||
	    r->tick != now_tick() || r->ingress != ingress)
		return;
	f->ifindex = r->ifindex;
	f->macs[0] = r->macs[0];
	f->macs[1] = r->macs[1];
	f->macs[2] = r->macs[2];
	f->mtu = r->mtu;
	f->route = r->route;
}

static __always_inline void route_keep(const struct flow *f, __u32 ingress)
{
	struct backend_route *r = route_entry(f);

	if (!r)
		return;
	r->backend = f->backend;
	r->generation = f->generation;
	r->tick = now_tick();
	r->ingress = ingress;
	r->ifindex = f->ifindex;
	r->macs[0] = f->macs[0];
	r->macs[1] = f->macs[1];
	r->macs[2] = f->macs[2];
	r->mtu = f->mtu;
	r->route = f->route;
}

/* Whether f, a flow that begins or not, may have its route from the cache. Plain frames only. */
static __always_inline bool route_shared(const struct flow *f, bool fresh)
{
	return fresh && (f->flags & (FLOW_REVERSE | FLOW_REMOTE)) == FLOW_REMOTE;
}

static __always_inline void fib_write_eth(struct packet *p, const struct flow *f)
{
	__u32 *eth = p->l2;

	eth[0] = f->macs[0];
	eth[1] = f->macs[1];
	eth[2] = f->macs[2];
}

#endif
