/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Which backend a new flow gets. Reads maps only; policy was decided when the tables were filled.
 */
#ifndef EBB_SELECT_H
#define EBB_SELECT_H

#include "maps.h"
#include "parse.h"

/*
 * The same on every node, so that the same Maglev table gives the same answer:
 * no seed. Multiply-rotate over the whole tuple, finished as in MurmurHash3.
 */
static __always_inline __u32 flow_hash(const struct flow_key *k)
{
	const __u64 *w = (const __u64 *)k;
	__u64 h = 0;

	for (__u32 i = 0; i < sizeof(*k) / sizeof(*w); i++) {
		h = (h ^ w[i]) * 0x9e3779b97f4a7c15ULL;
		h = (h << 29) | (h >> 35);
	}
	h ^= h >> 33;
	h *= 0xff51afd7ed558ccdULL;
	h ^= h >> 33;
	return h;
}

static __always_inline struct frontend *frontend_lookup(const struct flow_key *k)
{
	struct frontend_key fk = {
		.addr = k->dst,
		.port = k->dport,
		.proto = k->proto,
	};

	return bpf_map_lookup_elem(&frontends, &fk);
}

static __always_inline bool from_pod(const struct flow_key *k)
{
	struct pod_cidr_key pk = {
		.prefix = 32 + 128,
		.v4 = addr_v4_mapped(k->src.w),
		.addr = k->src,
	};

	return bpf_map_lookup_elem(&pod_cidrs, &pk);
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
 * The candidates for a client. Pods reach what is external as if they came from
 * the load balancer, that may be any node: policy Local is not for them. set is
 * the flag of the backends that are candidates.
 */
static __always_inline const struct table *
select_table(const struct frontend *fe, const struct flow_key *k, bool pod, __u8 *set)
{
	if (fe->flags & FRONTEND_LOCAL && !pod && !from_pod(k)) {
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

static __always_inline __u32 affinity_now(void)
{
	return bpf_ktime_get_ns() / 1000000000;
}

/* The backend the client keeps, if it is still a candidate; flags tell, tables cannot be searched.
 */
static __always_inline struct backend *affinity_recall(const struct frontend *fe,
						       const struct affinity_key *k, __u8 set,
						       __u32 now, __u32 *index)
{
	struct affinity_value *a = bpf_map_lookup_elem(&affinity, k);
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

static __always_inline struct backend *select_sticky(const struct frontend *fe,
						     const struct flow_key *k,
						     const struct table *t, __u8 set, __u32 hash,
						     __u32 *index)
{
	struct affinity_key ak = {.client = k->src, .service_port = fe->service_port};
	struct affinity_value a = {.used = affinity_now()};
	struct backend *b;

	b = affinity_recall(fe, &ak, set, a.used, &a.backend);
	if (b) {
		*index = a.backend;
		return b;
	}
	b = select_slot(fe, t, hash, index);
	if (!b)
		return NULL;
	a.backend = *index;
	a.generation = b->generation;
	/* Refused: the client is spread anew, which is what a full map means. */
	bpf_map_update_elem(&affinity, &ak, &a, BPF_ANY);
	return b;
}

/* The backend of a new flow, or NULL. pod: the client is known to be one. */
static __always_inline struct backend *select_backend(const struct frontend *fe,
						      const struct flow_key *k, bool pod,
						      __u32 hash, __u32 *index)
{
	const struct table *t;
	__u8 set;

	t = select_table(fe, k, pod, &set);
	if (fe->affinity)
		return select_sticky(fe, k, t, set, hash, index);
	return select_slot(fe, t, hash, index);
}

/* Why there is no backend. */
static __always_inline enum verdict select_verdict(const struct frontend *fe)
{
	return fe->flags & FRONTEND_ENDPOINTS ? VERDICT_NO_BACKEND : VERDICT_NO_ENDPOINTS;
}

#endif
