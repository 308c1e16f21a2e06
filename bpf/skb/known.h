/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Whether a packet that belongs to no flow is of a connection of the node: a
 * socket that has its address and port, or netfilter, which may have begun the
 * connection (kube-proxy before ebb was there) or masquerades it (the CNI). Asked
 * only of what is not a SYN, and begins nothing that ebb knows.
 *
 * netfilter's functions are there since Linux 5.18 and 6.0, as far as conntrack
 * is built in or its module is loaded when the programs are. Without them only
 * sockets are asked.
 */
#ifndef EBB_SKB_KNOWN_H
#define EBB_SKB_KNOWN_H

#include "wire/parse.h"

/* Never looked into: the kernel's own has more. */
struct nf_conn {
	unsigned long status;
};

struct bpf_ct_opts {
	__s32 netns_id;
	__s32 error;
	__u8 l4proto;
	__u8 dir;
	__u8 reserved[2];
};

extern struct nf_conn *bpf_skb_ct_lookup(struct __sk_buff *skb, struct bpf_sock_tuple *tuple,
					 __u32 tuple__sz, struct bpf_ct_opts *opts,
					 __u32 opts__sz) __ksym __weak;
extern struct nf_conn *bpf_xdp_ct_lookup(struct xdp_md *ctx, struct bpf_sock_tuple *tuple,
					 __u32 tuple__sz, struct bpf_ct_opts *opts,
					 __u32 opts__sz) __ksym __weak;
extern void bpf_ct_release(struct nf_conn *ct) __ksym __weak;

#define SOCKET_LISTENS 10 /* struct bpf_sock.state */

/* The tuple of s; returns its size. */
static __always_inline __u32 known_tuple(const struct segment *s, struct bpf_sock_tuple *t)
{
	if (s->v4) {
		t->ipv4.saddr = s->key.src.w[3];
		t->ipv4.daddr = s->key.dst.w[3];
		t->ipv4.sport = s->key.sport;
		t->ipv4.dport = s->key.dport;
		return sizeof(t->ipv4);
	}
	__builtin_memcpy(t->ipv6.saddr, s->key.src.b, 16);
	__builtin_memcpy(t->ipv6.daddr, s->key.dst.b, 16);
	t->ipv6.sport = s->key.sport;
	t->ipv6.dport = s->key.dport;
	return sizeof(t->ipv6);
}

static __always_inline bool known_udp(void *ctx, struct bpf_sock_tuple *t, __u32 size)
{
	struct bpf_sock *sk = bpf_sk_lookup_udp(ctx, t, size, BPF_F_CURRENT_NETNS, 0);

	if (!sk)
		return false;
	bpf_sk_release(sk);
	return true;
}

/* A socket that listens has no connection that a packet without SYN could belong to. */
static __always_inline bool known_tcp(void *ctx, struct bpf_sock_tuple *t, __u32 size)
{
	struct bpf_sock *sk = bpf_skc_lookup_tcp(ctx, t, size, BPF_F_CURRENT_NETNS, 0);
	bool listens;

	if (!sk)
		return false;
	listens = sk->state == SOCKET_LISTENS;
	bpf_sk_release(sk);
	return !listens;
}

static __always_inline bool known_to_sockets(void *ctx, const struct segment *s,
					     struct bpf_sock_tuple *t, __u32 size)
{
	if (s->key.proto == IPPROTO_UDP)
		return known_udp(ctx, t, size);
	return s->key.proto == IPPROTO_TCP && known_tcp(ctx, t, size);
}

/* Whether netfilter has a connection of this tuple. */
static __always_inline bool known_to_netfilter(void *ctx, bool xdp, const struct segment *s,
					       struct bpf_sock_tuple *t, __u32 size)
{
	struct bpf_ct_opts o = {.netns_id = BPF_F_CURRENT_NETNS, .l4proto = s->key.proto};
	struct nf_conn *ct;

	if (!(xdp ? !!bpf_xdp_ct_lookup : !!bpf_skb_ct_lookup) || !bpf_ct_release)
		return false;
	ct = xdp ? bpf_xdp_ct_lookup(ctx, t, size, &o, sizeof(o))
		 : bpf_skb_ct_lookup(ctx, t, size, &o, sizeof(o));
	if (!ct)
		return false;
	bpf_ct_release(ct);
	return true;
}

static __always_inline bool known(void *ctx, bool xdp, const struct segment *s)
{
	struct bpf_sock_tuple t = {};
	__u32 size;

	if (!s || s->key.proto == IPPROTO_SCTP)
		return false;
	size = known_tuple(s, &t);
	return known_to_sockets(ctx, s, &t, size) || known_to_netfilter(ctx, xdp, s, &t, size);
}

/* Global functions, because their stack is then their own. */
__noinline int known_skb(struct __sk_buff *skb, const struct segment *s)
{
	return known(skb, false, s);
}

__noinline int known_xdp(struct xdp_md *ctx, const struct segment *s)
{
	return known(ctx, true, s);
}

#endif
