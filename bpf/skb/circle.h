/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What is for an address that is announced from here, but for no Service there:
 * another port, a ping. The address is nobody's, so the stack would send the packet back to
 * the router it came from, which sends it here again, until its TTL is used up. TC
 * ingress only.
 */
#ifndef EBB_SKB_CIRCLE_H
#define EBB_SKB_CIRCLE_H

#include "flow/address.h"
#include "route/fib.h"

/* Whether the stack would send s out again by the device it came in by, to a router. */
static __always_inline bool circle_closes(struct __sk_buff *skb, const struct segment *s,
					  struct bpf_fib_lookup *fib)
{
	__u32 ifindex = skb->ifindex;
	long err;

	__builtin_memset(fib, 0, sizeof(*fib));
	fib->l4_protocol = s->key.proto;
	fib->sport = s->key.sport;
	fib->dport = s->key.dport;
	fib->tot_len = FIB_ANY_LENGTH;
	fib->ifindex = ifindex;
	fib_addresses(fib, s->v4, &s->key.src, &s->key.dst);
	err = bpf_fib_lookup(skb, fib, sizeof(*fib), 0);
	if (!fib_leads(err) || fib->ifindex != ifindex)
		return false;
	/* The next hop is written over the destination. */
	if (s->v4)
		return fib->family != AF_INET || fib->ipv4_dst != s->key.dst.w[3];
	return __builtin_memcmp(fib->ipv6_dst, s->key.dst.b, 16);
}

/* The verdict on s, which is no Service's: VERDICT_NOT_SERVICE unless it would circle. */
__noinline int circle_verdict(struct __sk_buff *skb, const struct segment *s)
{
	struct bpf_fib_lookup *fib = fib_scratch_get();
	union ip_addr dst;
	__u32 owner;

	if (!s || !fib)
		return VERDICT_NOT_SERVICE;
	dst = s->key.dst;
	owner = address_flags(&dst);
	if (!(owner & ADDRESS_EXTERNAL) || owner & ADDRESS_NODE || !circle_closes(skb, s, fib))
		return VERDICT_NOT_SERVICE;
	return VERDICT_NO_PORT;
}

#endif
