/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Where a packet goes that ebb routes itself: the kernel's table, remembered in the flow. */
#ifndef EBB_ROUTE_FIB_H
#define EBB_ROUTE_FIB_H

#include "route/secured.h"

/*
 * The query that is under way, because the stack is short (512 bytes over all
 * calls). Programs on a CPU do not interrupt each other between asking and
 * using the answer: they run with bottom halves off.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct bpf_fib_lookup);
} fib_scratch SEC(".maps");

static __always_inline struct bpf_fib_lookup *fib_scratch_get(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&fib_scratch, &zero);
}

/* What the route of a packet depends on, beside its flow. */
struct route_query {
	__u32 bytes;  /* layer 3, of one packet on the wire */
	__be32 label; /* IPv4: TOS. IPv6: traffic class and flow label */
	__u16 tag;    /* XDP: see xdp_tag() */
	__u8 proto;
	__u8 v4;
	__u8 fresh;     /* the flow is not an entry yet */
	__u8 cacheable; /* an Ethernet header and no tags: the route can be remembered */
	__u8 may_leave; /* XDP: see xdp_may_leave() */
	__u8 pad;
};

static __always_inline void route_query_of(const struct packet *p, __u32 bytes,
					   struct route_query *q)
{
	q->bytes = bytes;
	q->proto = p->seg.key.proto;
	q->v4 = p->seg.v4;
	q->label = p->seg.v4 ? ((struct ipv4_hdr *)p->l3)->tos
			     : *(__be32 *)p->l3 & bpf_htonl(IPV6_LABEL_MASK);
}

/*
 * fib.tot_len of a question that is not about the MTU. With 0 the kernel compares the skb
 * itself with that of the device it would leave by.
 */
#define FIB_ANY_LENGTH 1

/* The addresses of a question, of either family. */
static __always_inline void fib_addresses(struct bpf_fib_lookup *fib, bool v4,
					  const union ip_addr *src, const union ip_addr *dst)
{
	if (v4) {
		fib->family = AF_INET;
		fib->ipv4_src = src->w[3];
		fib->ipv4_dst = dst->w[3];
	} else {
		fib->family = AF_INET6;
		__builtin_memcpy(fib->ipv6_src, src->b, 16);
		__builtin_memcpy(fib->ipv6_dst, dst->b, 16);
	}
}

/* Whether the kernel's answer names a device to leave by. */
static __always_inline bool fib_leads(long err)
{
	return err == BPF_FIB_LKUP_RET_SUCCESS || err == BPF_FIB_LKUP_RET_NO_NEIGH;
}

/* An answer of fib_ask(), beside the kernel's: the stack has to send it, see secured.h. */
#define FIB_TO_STACK 64

/* Ask the kernel where a packet goes once it is rewritten as f says. */
static __always_inline long fib_ask(void *ctx, __u32 ingress, const struct route_query *q,
				    const struct flow *f, struct bpf_fib_lookup *fib)
{
	__u32 more = secured_to(&f->dst) ? SECURED_BYTES : 0;
	long err;

	__builtin_memset(fib, 0, sizeof(*fib));
	fib->l4_protocol = q->proto;
	fib->sport = f->sport;
	fib->dport = f->dport;
	fib->tot_len = q->bytes + more;
	fib->ifindex = ingress;
	if (q->v4)
		fib->tos = q->label;
	else
		fib->flowinfo = q->label;
	fib_addresses(fib, q->v4, &f->src, &f->dst);
	err = bpf_fib_lookup(ctx, fib, sizeof(*fib), 0);
	fib->mtu_result -= more;
	return more && fib_leads(err) ? FIB_TO_STACK : err;
}

/* A route as flows and backend_routes remember it. */
struct next_hop {
	__u32 ifindex;
	__u32 macs[3]; /* destination, source, as in the frame */
	__u16 mtu;
	__u16 route; /* enum route_flag */
};

static __always_inline void next_hop_of(const struct bpf_fib_lookup *fib, __u32 ifindex, __u16 who,
					struct next_hop *hop)
{
	hop->ifindex = ifindex;
	hop->mtu = fib->mtu_result;
	__builtin_memcpy((__u8 *)hop->macs, fib->dmac, 6);
	__builtin_memcpy((__u8 *)hop->macs + 6, fib->smac, 6);
	hop->route = who;
}

/*
 * flow.ifindex while a CPU writes the route of a flow. Two of them that ask at
 * once may be answered differently, and what they write must not be mixed. The
 * second leaves the flow alone, both send their own packet by their own answer.
 */
#define ROUTE_BUSY 0xffffffff

static __always_inline void route_remember(struct flow *f, const struct next_hop *hop)
{
	__u32 was = f->ifindex;

	if (was == ROUTE_BUSY || __sync_val_compare_and_swap(&f->ifindex, was, ROUTE_BUSY) != was)
		return;
	*(volatile __u64 *)f->macs = (__u64)hop->macs[1] << 32 | hop->macs[0];
	f->macs[2] = hop->macs[2];
	f->mtu = hop->mtu;
	f->route = hop->route;
	__sync_lock_test_and_set(&f->ifindex, hop->ifindex);
}

/*
 * Whether f has a route for all that who says. *ifindex is read once. Who reads
 * the rest while it is written anew sends one frame by the old device, or with its
 * address, to the new next hop: the destination is read and written in one piece.
 */
static __always_inline bool route_known(const struct flow *f, __u16 who, __u32 *ifindex)
{
	*ifindex = *(volatile const __u32 *)&f->ifindex;
	return (f->route & who) == who && *ifindex != ROUTE_BUSY;
}

_Static_assert(__builtin_offsetof(struct flow, macs) % 8 == 0 &&
		       __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
	       "a destination address is read in one piece");

static __always_inline void route_write_eth(struct packet *p, const struct flow *f)
{
	__u64 first = *(volatile const __u64 *)f->macs;
	__u32 *eth = p->l2;

	eth[0] = first;
	eth[1] = first >> 32;
	eth[2] = f->macs[2];
}

static __always_inline void next_hop_write_eth(struct packet *p, const struct next_hop *hop)
{
	__u32 *eth = p->l2;

	eth[0] = hop->macs[0];
	eth[1] = hop->macs[1];
	eth[2] = hop->macs[2];
}

/*
 * The last route to a backend on another node, per CPU. The first packets of
 * flows have no entry yet that could remember one, and asking the kernel would
 * be a third of what a SYN costs. Flows that are established use it too, so a route
 * may be twice ROUTE_TICKS old. Backends share entries.
 */
#define ROUTE_CACHE 1024

struct backend_route {
	__u32 backend;
	__u32 generation;
	__u32 tick; /* of the look-up */
	__u32 ingress;
	struct next_hop hop;
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

/* Whether f may have its route from others to its backend. */
static __always_inline bool route_shared(const struct route_query *q, const struct flow *f)
{
	return q->cacheable && (f->flags & (FLOW_REVERSE | FLOW_REMOTE)) == FLOW_REMOTE &&
	       routes_shared();
}

/* The route that another flow to the same backend has looked up, or NULL. */
static __always_inline struct next_hop *route_recall(const struct flow *f, __u32 ingress)
{
	struct backend_route *r = route_entry(f);
	__u32 now = now_tick();

	if (!r || r->backend != f->backend || r->generation != f->generation ||
	    r->ingress != ingress)
		return NULL;
	if (r->tick != now && (now - r->tick >= ROUTE_TICKS || !route_holds(r->tick, now)))
		return NULL;
	return &r->hop;
}

static __always_inline void route_keep(const struct flow *f, __u32 ingress,
				       const struct next_hop *hop)
{
	struct backend_route *r = route_entry(f);

	if (!r)
		return;
	r->backend = f->backend;
	r->generation = f->generation;
	r->tick = now_tick();
	r->ingress = ingress;
	r->hop = *hop;
}

/*
 * While no agent keeps neighbours fresh, one packet in so many ticks goes to each next
 * hop by the kernel's neighbour code, which has it confirmed.
 */
#define NEIGHBOUR_TICKS 16

static __always_inline void neighbour_key_of(const struct bpf_fib_lookup *fib,
					     struct neighbour_key *key)
{
	__builtin_memset(key, 0, sizeof(*key));
	key->ifindex = fib->ifindex;
	if (fib->family == AF_INET) {
		key->addr.w[2] = bpf_htonl(0xffff);
		key->addr.w[3] = fib->ipv4_dst;
	} else {
		__builtin_memcpy(key->addr.b, fib->ipv6_dst, 16);
	}
}

/* The entry of the next hop that fib leads to, in use now; NULL if it is a new one. */
static __always_inline struct neighbour *neighbour_use(const struct bpf_fib_lookup *fib, __u32 now)
{
	struct neighbour fresh = {.used = now, .probed = now - NEIGHBOUR_TICKS};
	struct neighbour_key key;
	struct neighbour *n;

	neighbour_key_of(fib, &key);
	n = bpf_map_lookup_elem(&neighbours, &key);
	if (!n)
		bpf_map_update_elem(&neighbours, &key, &fresh, BPF_NOEXIST);
	else if (n->used != now)
		n->used = now;
	return n;
}

/* Note that the next hop of fib is in use. True: the kernel should send this packet. */
static __always_inline bool neighbour_due(const struct bpf_fib_lookup *fib)
{
	__u32 now = now_tick();
	struct neighbour *n = neighbour_use(fib, now);

	return (!n || now - n->probed >= NEIGHBOUR_TICKS) && !routes_watched(now);
}

/* Note that it is in use, and that the kernel sends this packet. */
static __always_inline void neighbour_probed(const struct bpf_fib_lookup *fib)
{
	__u32 now = now_tick();
	struct neighbour *n = neighbour_use(fib, now);

	if (n && n->probed != now)
		n->probed = now;
}

#endif
