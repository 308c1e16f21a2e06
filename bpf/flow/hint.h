/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Four arrays indexed by hashes: what they say may be overwritten by others at
 * any time, so they only ever tell where to look, or what need not be looked up.
 */
#ifndef EBB_FLOW_HINT_H
#define EBB_FLOW_HINT_H

#include "flow/entry.h"

/*
 * The same on every node, so that the same Maglev table gives the same answer:
 * no seed. Multiply-rotate over the whole tuple, finished as in MurmurHash3.
 */
static __always_inline __u64 tuple_hash(const struct flow_key *k)
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

/* The half of a tuple's hash that selects. */
static __always_inline __u32 flow_hash(const struct flow_key *k)
{
	return tuple_hash(k);
}

/* Note that the flow of a client's tuple with this hash was given to a backend. */
static __always_inline void given_note(__u64 hash, __u32 backend)
{
	__u32 slot = hash % GIVEN_ENTRIES;
	struct given_backend *g = bpf_map_lookup_elem(&given, &slot);

	if (!g)
		return;
	g->tag = hash >> 32;
	g->backend = backend;
}

/* Whether it is known to which backend it was given last. */
static __always_inline bool given_recall(__u64 hash, __u32 *backend)
{
	__u32 slot = hash % GIVEN_ENTRIES;
	struct given_backend *g = bpf_map_lookup_elem(&given, &slot);

	if (!g || g->tag != (__u32)(hash >> 32))
		return false;
	*backend = g->backend;
	return true;
}

static __always_inline __u32 *filter_slot(const union ip_addr *addr, __be16 port, __u8 proto)
{
	__u32 slot = addr->w[3] ^ addr->w[2] * 0x85ebca6b ^ addr->w[1] * 0xc2b2ae35 ^ addr->w[0];

	slot = (slot ^ ((__u32)port << 16) ^ ((__u32)proto << 11)) * 0x9e3779b1;
	slot >>= 16;
	_Static_assert(FILTER_ENTRIES == 1 << 16, "bits of a slot");
	return bpf_map_lookup_elem(&backend_filter, &slot);
}

/* A protocol in the filter: of who has guests, see guest.h. */
#define FILTER_GUEST 0x80

/* Note that a backend has flows. */
static __always_inline void filter_note(const union ip_addr *addr, __be16 port, __u8 proto,
					__u32 now)
{
	__u32 *slot = filter_slot(addr, port, proto);

	if (slot && *slot != now)
		*slot = now;
}

/* False: an address and port is no backend that has flows. */
static __always_inline bool filter_asks(const union ip_addr *addr, __be16 port, __u8 proto)
{
	__u32 *slot = filter_slot(addr, port, proto);

	return slot && *slot && now_tick() - *slot <= ticks(TIMEOUT_FILTER);
}

/* A slot for a backend's tuple; *tag tells it from others that have the same. */
static __always_inline __u32 *tuple_slot(void *map, __u32 entries, const struct flow_key *reverse,
					 __u32 *tag)
{
	__u64 hash = tuple_hash(reverse);
	__u32 slot = hash % entries;

	*tag = (__u32)(hash >> 32) | 1;
	return bpf_map_lookup_elem(map, &slot);
}

/* Note that a backend's tuple is a flow's. */
static __always_inline void owned_note(const struct flow_key *reverse)
{
	__u32 tag, *slot = tuple_slot(&owned, OWNED_ENTRIES, reverse, &tag);

	if (slot)
		*slot = tag;
}

/* Whether a backend's tuple was last seen as a flow's. */
static __always_inline bool owned_asks(const struct flow_key *reverse)
{
	__u32 tag, *slot = tuple_slot(&owned, OWNED_ENTRIES, reverse, &tag);

	return slot && *slot == tag;
}

/* A client connects to the backend itself: from now on the tuple is theirs. */
static __always_inline void theirs_note(const struct flow_key *reverse)
{
	__u32 tag, *slot = tuple_slot(&owned, OWNED_ENTRIES, reverse, &tag);

	if (slot && *slot == tag)
		*slot = 0;
	slot = tuple_slot(&theirs, THEIRS_ENTRIES, reverse, &tag);
	if (slot)
		*slot = tag;
}

/* Whether somebody else connected by a backend's tuple last. */
static __always_inline bool theirs_asks(const struct flow_key *reverse)
{
	__u32 tag, *slot = tuple_slot(&theirs, THEIRS_ENTRIES, reverse, &tag);

	return slot && *slot == tag;
}

#endif
