/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Addresses of Services where no frontend is: other ports, and addresses that are nobody's. */
#ifndef EBB_FLOW_ADDRESS_H
#define EBB_FLOW_ADDRESS_H

#include "abi/maps.h"
#include "wire/parse.h"

/*
 * Whether dst may be an address of a Service. Nearly every packet that is not
 * for one learns here, for a few instructions, that it need not ask further.
 */
static __always_inline bool address_in_services(const union ip_addr *dst, bool v4)
{
	struct runtime_values *rt = runtime_get();

	if (!rt)
		return false;
	if (v4)
		return !((dst->w[3] ^ rt->services4_net) & rt->services4_mask);
	for (int i = 0; i < 4; i++)
		if ((dst->w[i] ^ rt->services6_net.w[i]) & rt->services6_mask.w[i])
			return false;
	return true;
}

/*
 * Whether it may be an address of this node: nearly all others are found not to be for a
 * few instructions. maps.AddressBit has the same in Go.
 */
static __always_inline bool address_may_be_own(const union ip_addr *addr)
{
	struct runtime_values *rt = runtime_get();
	__u32 fold = addr->w[0] ^ addr->w[1] ^ addr->w[2] ^ addr->w[3];

	return rt && rt->node_bits >> (fold * 0x9e3779b1u >> 26) & 1;
}

/* Flags of an address, 0 if it is not known. */
static __always_inline __u32 address_flags(const union ip_addr *addr)
{
	__u32 *flags = bpf_map_lookup_elem(&addresses, addr);

	return flags ? *flags : 0;
}

/* Whether it is in a range of Services' addresses, which may be nobody's. */
static __always_inline bool address_reserved(const union ip_addr *addr)
{
	struct cidr_key key = {
		.prefix = 32 + 128,
		.v4 = addr_v4_mapped(addr->w),
		.addr = *addr,
	};

	return bpf_map_lookup_elem(&service_cidrs, &key);
}

/*
 * Whether the sender's address is one that nobody can have who sends through an
 * uplink: what Linux calls martian, or would not forward, and the node's own. An answer
 * would not find its way. (Of 240.0.0.0/4 only broadcast: Linux routes the rest, and
 * there are clusters that use it.) A global function: see flow/entry.h.
 */
__noinline int source_martian(const struct segment *s)
{
	union ip_addr src;
	__u8 first;

	if (!s)
		return 1;
	src = s->key.src;
	first = src.b[12];
	if (s->v4) {
		if (!first || first == 127 || (first & 0xf0) == 0xe0 || src.w[3] == 0xffffffff)
			return 1;
	} else if (src.b[0] == 0xff ||
		   (src.w[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000) ||
		   !(src.w[0] | src.w[1] | src.w[2] | (src.w[3] & bpf_htonl(~1)))) {
		return 1;
	}
	return !!(address_flags(&src) & ADDRESS_NODE);
}

/*
 * What becomes of a packet to an address in the services' span where no
 * frontend is. A global function: see flow/entry.h.
 */
__noinline int address_verdict(const union ip_addr *dst)
{
	union ip_addr addr;

	if (!dst)
		return VERDICT_NOT_SERVICE;
	addr = *dst;
	if (address_flags(&addr) & ADDRESS_CLUSTER_IP)
		return VERDICT_NO_PORT;
	return address_reserved(&addr) ? VERDICT_UNALLOCATED : VERDICT_NOT_SERVICE;
}

#endif
