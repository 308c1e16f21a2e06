/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Where a packet goes that ebb routes itself: the kernel's table, remembered in the flow for a
 * tick. */
#ifndef EBB_FIB_H
#define EBB_FIB_H

#include "nat.h"

/*
 * Room for one question, because the stack is short (512 bytes over all
 * calls). Programs on a CPU do not interrupt each other between asking and
 * using the answer: they run with bottom halves off.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct bpf_fib_lookup);
} fib_scratch SEC(".maps");

static __always_inline struct bpf_fib_lookup *fib_room(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&fib_scratch, &zero);
}

/* Ask for the way of p as it will be after f's rewrite. bytes: layer 3, of one packet on the wire.
 */
static __always_inline long fib_ask(void *ctx, __u32 ingress, const struct packet *p,
				    const struct flow *f, __u32 bytes, struct bpf_fib_lookup *fib)
{
	__builtin_memset(fib, 0, sizeof(*fib));
	fib->l4_protocol = p->seg.key.proto;
	fib->sport = f->sport;
	fib->dport = f->dport;
	fib->tot_len = bytes;
	fib->ifindex = ingress;
	if (p->seg.v4) {
		fib->family = AF_INET;
		fib->tos = ((struct ipv4_hdr *)p->l3)->tos;
		fib->ipv4_src = f->src.w[3];
		fib->ipv4_dst = f->dst.w[3];
	} else {
		fib->family = AF_INET6;
		fib->flowinfo = *(__be32 *)p->l3 & bpf_htonl(0x0fffffff);
		__builtin_memcpy(fib->ipv6_src, f->src.b, 16);
		__builtin_memcpy(fib->ipv6_dst, f->dst.b, 16);
	}
	return bpf_fib_lookup(ctx, fib, sizeof(*fib), 0);
}

static __always_inline void fib_remember(struct flow *f, const struct bpf_fib_lookup *fib,
					 __u32 ifindex, __u16 who)
{
	f->ifindex = ifindex;
	f->mtu = fib->mtu_result;
	__builtin_memcpy((__u8 *)f->macs, fib->dmac, 6);
	__builtin_memcpy((__u8 *)f->macs + 6, fib->smac, 6);
	f->route = who;
}

static __always_inline void fib_write_eth(struct packet *p, const struct flow *f)
{
	__u32 *eth = p->l2;

	eth[0] = f->macs[0];
	eth[1] = f->macs[1];
	eth[2] = f->macs[2];
}

#endif
