/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What may leave this node only encrypted.
 *
 * Policies of the kernel (xfrm) say what IPsec encrypts. They are asked where the stack
 * routes, and nothing that is sent from here passes there. So the agent writes down to
 * where policies apply, whatever else they ask for, and what goes there is given to the
 * stack, translated: it knows the rest of the policy, and has the keys.
 */
#ifndef EBB_ROUTE_SECURED_H
#define EBB_ROUTE_SECURED_H

#include "route/route.h"
#include "wire/parse.h"

/*
 * What encryption may add to a packet: a header of IPv6, UDP, ESP, and its padding and sums.
 * The stack would tell the packet's sender, which is this node, that there is no room for it.
 */
#define SECURED_BYTES 128

/* Whether dst is in a range of secured. Not inlined, for the stack. */
__noinline int secured_range(const union ip_addr *dst)
{
	struct cidr_key key = {.prefix = 32 + 128};

	if (!dst)
		return 0;
	key.addr = *dst;
	key.v4 = addr_v4_mapped(dst->w);
	return !!bpf_map_lookup_elem(&secured, &key);
}

/* Whether a policy may apply to packets to dst. */
static __always_inline bool secured_to(const union ip_addr *dst)
{
	struct route_state *r = routes_get();

	return r && r->flags & ROUTES_SECURED && secured_range(dst);
}

#endif
