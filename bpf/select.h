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

/*
 * The table is the truth about who takes new flows; a draining backend is in
 * one only when it stands in for missing active ones. An entry that is not
 * this service's is one the agent has taken back: never send there.
 */
static __always_inline struct backend *select_backend(const struct frontend *fe, __u32 hash,
						      __u32 *index)
{
	const struct table *t = fe->flags & FRONTEND_LOCAL ? &fe->local : &fe->cluster;
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
	if (!b || b->service_port != fe->service_port)
		return NULL;
	if (b->state != BACKEND_ACTIVE && b->state != BACKEND_DRAINING)
		return NULL;
	*index = pos;
	return b;
}

#endif
