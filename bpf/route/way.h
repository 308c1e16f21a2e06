/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Whether a backend is here or away: the kernel's routes say so, when a flow begins.
 *
 *	its route leads to         it is
 *	this machine itself        here: a host-network backend, or a process of the node
 *	one to other machines      away: the source is rewritten to an address of that
 *	                           device, as MASQUERADE does, so the answer comes in by it
 *	one that may lead to both  what the API says of its node
 *	any other device           here: a pod's link, or the bridge of pods
 *	nowhere                    away: who routes the packet is told why not
 *
 * A backend that is here keeps its client's address. Its answer leaves through a
 * program, because all devices that lead to other machines have one (loader/exits.go).
 */
#ifndef EBB_ROUTE_WAY_H
#define EBB_ROUTE_WAY_H

#include "route/fib.h"

/* The answer for a backend, per CPU. Backends share entries. */
struct backend_way {
	__u32 backend;
	__u32 generation;
	__u32 tick; /* of the question */
	__u32 ingress;
	__u32 away;
	__u32 pad;
	union ip_addr src; /* away: of packets to it; absent: the family is not there */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, ROUTE_CACHE);
	__type(key, __u32);
	__type(value, struct backend_way);
} backend_ways SEC(".maps");

static __always_inline struct backend_way *way_entry(__u32 backend)
{
	__u32 key = backend % ROUTE_CACHE;

	return bpf_map_lookup_elem(&backend_ways, &key);
}

/* The way to a backend if it was asked for lately, or NULL: see way_ask(). */
static __always_inline const struct backend_way *way_recall(__u32 backend, __u32 generation,
							    __u32 ingress)
{
	struct backend_way *w = way_entry(backend);
	__u32 now = now_tick();

	if (!w || w->backend != backend || w->generation != generation || w->ingress != ingress)
		return NULL;
	if (w->tick != now && (now - w->tick >= ROUTE_TICKS || !route_holds(w->tick, now)))
		return NULL;
	return w;
}

/* The address of this machine that packets to a backend by this device have. */
static __always_inline void way_source(const struct device *d, bool v4, union ip_addr *src)
{
	struct runtime_values *rt = runtime_get();

	if (d)
		*src = v4 ? d->snat4 : d->snat6;
	if (rt && !(src->w[0] | src->w[1] | src->w[2] | src->w[3]))
		*src = v4 ? rt->snat4 : rt->snat6;
}

/* Ask the kernel where packets of this client to b go. */
static __always_inline long way_fib(void *ctx, __u32 ingress, const struct flow_key *client,
				    const struct backend *b, bool v4, struct bpf_fib_lookup *fib)
{
	__builtin_memset(fib, 0, sizeof(*fib));
	fib->l4_protocol = client->proto;
	fib->sport = client->sport;
	fib->dport = b->port;
	fib->tot_len = FIB_ANY_LENGTH;
	fib->ifindex = ingress;
	fib_addresses(fib, v4, &client->src, &b->addr);
	return bpf_fib_lookup(ctx, fib, sizeof(*fib), 0);
}

/* Where the kernel does not say, forwarding being off, what the API says has to do. */
static __always_inline void way_of(long fib_says, __u32 leaves_by, const struct backend *b, bool v4,
				   struct backend_way *w)
{
	struct device *d = bpf_map_lookup_elem(&devices, &leaves_by);
	bool led = fib_leads(fib_says);

	if (!led)
		d = NULL;
	if (fib_says == BPF_FIB_LKUP_RET_NOT_FWDED)
		w->away = false;
	else if (led)
		w->away = d && (d->flags & DEVICE_AWAY || !(b->flags & BACKEND_LOCAL));
	else
		w->away = fib_says != BPF_FIB_LKUP_RET_FWD_DISABLED || !(b->flags & BACKEND_LOCAL);
	if (w->away)
		way_source(d, v4, &w->src);
}

/* Find out, for way_recall(), the way to the backend with this index. */
static __always_inline void way_ask(void *ctx, __u32 ingress, const struct flow_key *client,
				    bool v4, __u32 index)
{
	struct bpf_fib_lookup *fib = fib_scratch_get();
	struct backend *b = bpf_map_lookup_elem(&backends, &index);
	struct backend_way *w = way_entry(index);
	long err;

	if (!fib || !b || !w)
		return;
	w->backend = index;
	w->generation = b->generation;
	w->tick = now_tick();
	w->ingress = ingress;
	__builtin_memset(&w->src, 0, sizeof(w->src));
	err = way_fib(ctx, ingress, client, b, v4, fib);
	way_of(err, fib->ifindex, b, v4, w);
}

/* Whether an answer's way may depend on its source, so that it is asked for again. */
static __always_inline bool routes_again(void)
{
	struct route_state *r = routes_get();

	return r && r->flags & (ROUTES_BY_SOURCE | ROUTES_SECURED);
}

#endif
