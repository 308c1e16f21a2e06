/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Addresses of Services where no frontend is: other ports, and addresses that are nobody's. */
#ifndef EBB_ADDRESS_H
#define EBB_ADDRESS_H

#include "maps.h"
#include "parse.h"

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

/* Flags of an address, 0 if it is not known. */
static __always_inline __u32 address_flags(const union ip_addr *addr)
{
	__u32 *flags = bpf_map_lookup_elem(&addresses, addr);

	return flags ? *flags : 0;
}

/* Whether it is in a range of Services' addresses, which may be nobody's. */
static __always_inline bool address_reserved(const union ip_addr *addr)
{
	struct service_cidr_key key = {
		.prefix = 32 + 128,
		.v4 = addr_v4_mapped(addr->w),
		.addr = *addr,
	};

	return bpf_map_lookup_elem(&service_cidrs, &key);
}

/*
 * What becomes of a packet to an address in the services' span where no
 * frontend is. A global function: see conntrack.h.
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
