/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Which backend a new flow gets. Reads maps only; policy was decided when the tables were filled.
 */
#ifndef EBB_FLOW_SELECT_H
#define EBB_FLOW_SELECT_H

#include "flow/hint.h"

static __always_inline struct frontend *frontend_lookup(const struct flow_key *k)
{
	struct frontend_key fk = {
		.addr = k->dst,
		.port = k->dport,
		.proto = k->proto,
	};

	return bpf_map_lookup_elem(&frontends, &fk);
}

static __always_inline bool in_source_ranges(const struct flow_key *k, const struct frontend *fe)
{
	struct source_range_key rk = {
		.prefix = 64 + 128,
		.service_port = fe->service_port,
		.v4 = addr_v4_mapped(k->src.w),
		.addr = k->src,
	};

	return bpf_map_lookup_elem(&source_ranges, &rk);
}

/*
 * The candidates for a client. Pods of this node reach what is external as if they
 * came from the load balancer, that may be any node: policy Local is not for them.
 * They are known by their link: what arrives at an uplink is external, whatever its
 * source address. set is the flag of the backends that are candidates.
 */
static __always_inline const struct table *select_table(const struct frontend *fe, bool pod,
							__u8 *set)
{
	if (fe->flags & FRONTEND_LOCAL && !pod) {
		*set = BACKEND_IN_LOCAL;
		return &fe->local;
	}
	*set = fe->flags & FRONTEND_INTERNAL_LOCAL ? BACKEND_IN_LOCAL : BACKEND_IN_CLUSTER;
	return &fe->cluster;
}

static __always_inline bool backend_usable(const struct backend *b, const struct frontend *fe)
{
	return b->service_port == fe->service_port &&
	       (b->state == BACKEND_ACTIVE || b->state == BACKEND_DRAINING);
}

/*
 * The table is the truth about who takes new flows; a draining backend is in
 * one only when it stands in for missing active ones. An entry that is not
 * this service's is one the agent has taken back: never send there.
 */
static __always_inline struct backend *select_slot(const struct frontend *fe, const struct table *t,
						   __u32 hash, __u32 *index)
{
	struct backend *b;
	__u32 pos, *slot;

	if (!t->length)
		return NULL;
	pos = t->offset + hash % t->length;
	slot = bpf_map_lookup_elem(&slots, &pos);
	if (!slot)
		return NULL;
	pos = *slot;
	b = bpf_map_lookup_elem(&backends, &pos);
	if (!b || !backend_usable(b, fe))
		return NULL;
	*index = pos;
	return b;
}

/*
 * A client without a backend yet is given one by its address alone: connections
 * that begin at once meet on it, also by way of different nodes.
 */
static __always_inline __u32 affinity_hash(const union ip_addr *client)
{
	struct flow_key k = {.src = *client};

	return flow_hash(&k);
}

static __always_inline __u32 affinity_now(void)
{
	return bpf_ktime_get_ns() / 1000000000;
}

/* The backend the client keeps, if it is still a candidate; flags tell, tables cannot be searched.
 */
static __always_inline struct backend *
affinity_recall(const struct frontend *fe, const struct affinity_key *k, __u8 set, __u32 *index)
{
	struct affinity_value *a = bpf_map_lookup_elem(&affinity, k);
	__u32 now = affinity_now();
	struct backend *b;
	__u32 pos;

	if (!a || now - a->used >= fe->affinity)
		return NULL;
	pos = a->backend;
	b = bpf_map_lookup_elem(&backends, &pos);
	if (!b || b->generation != a->generation || !(b->flags & set) || !backend_usable(b, fe))
		return NULL;
	a->used = now;
	*index = pos;
	return b;
}

/* Have the client keep the backend. Refused: it is spread anew, which is what a full map means. */
static __always_inline void affinity_keep(const union ip_addr *client, __u32 service_port,
					  __u32 backend, __u32 generation)
{
	struct affinity_key k = {.client = *client, .service_port = service_port};
	struct affinity_value a = {
		.backend = backend,
		.generation = generation,
		.used = affinity_now(),
	};

	bpf_map_update_elem(&affinity, &k, &a, BPF_ANY);
}

static __always_inline struct backend *select_sticky(const struct frontend *fe,
						     const union ip_addr *client,
						     const struct table *t, __u8 set, __u32 *index)
{
	struct affinity_key ak = {.client = *client, .service_port = fe->service_port};
	struct backend *b = affinity_recall(fe, &ak, set, index);

	return b ? b : select_slot(fe, t, affinity_hash(client), index);
}

/* The backend of a new flow, or NULL. pod: the client is one of this node. */
static __always_inline struct backend *select_backend(const struct frontend *fe,
						      const struct flow_key *k, bool pod,
						      __u32 hash, __u32 *index)
{
	const struct table *t;
	__u8 set;

	t = select_table(fe, pod, &set);
	if (fe->affinity)
		return select_sticky(fe, &k->src, t, set, index);
	return select_slot(fe, t, hash, index);
}

/* Why there is no backend. */
static __always_inline enum verdict select_verdict(const struct frontend *fe)
{
	return fe->flags & FRONTEND_ENDPOINTS ? VERDICT_NO_BACKEND : VERDICT_NO_ENDPOINTS;
}

#endif
