//go:build ignore

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Sockets of the node and its pods. Programs with a 6 also see IPv4: a socket of
 * both families dials v4-mapped addresses, which is what keys hold anyway.
 */
#include "sock.h"

/* What programs of this kind return. */
#define CALL_REFUSED 0
#define CALL_GOES_ON 1

#define ECONNREFUSED 111
#define EHOSTUNREACH 113

static __always_inline bool sock_balances(struct bpf_sock_addr *ctx)
{
	return ctx->protocol == IPPROTO_TCP || ctx->protocol == IPPROTO_UDP;
}

static __always_inline void sock_read(struct bpf_sock_addr *ctx, struct dial *d)
{
	__builtin_memset(d, 0, sizeof(*d));
	d->cookie = bpf_get_socket_cookie(ctx);
	d->key.dport = ctx->user_port;
	d->key.proto = ctx->protocol;
}

static __always_inline void sock_read4(struct bpf_sock_addr *ctx, struct dial *d)
{
	sock_read(ctx, d);
	addr_from_v4(&d->key.dst, ctx->user_ip4);
}

static __always_inline void sock_read6(struct bpf_sock_addr *ctx, struct dial *d)
{
	sock_read(ctx, d);
	d->key.dst.w[0] = ctx->user_ip6[0];
	d->key.dst.w[1] = ctx->user_ip6[1];
	d->key.dst.w[2] = ctx->user_ip6[2];
	d->key.dst.w[3] = ctx->user_ip6[3];
}

static __always_inline void sock_write4(struct bpf_sock_addr *ctx, const union ip_addr *addr,
					__be16 port)
{
	ctx->user_ip4 = addr->w[3];
	ctx->user_port = port;
}

static __always_inline void sock_write6(struct bpf_sock_addr *ctx, const union ip_addr *addr,
					__be16 port)
{
	ctx->user_ip6[0] = addr->w[0];
	ctx->user_ip6[1] = addr->w[1];
	ctx->user_ip6[2] = addr->w[2];
	ctx->user_ip6[3] = addr->w[3];
	ctx->user_port = port;
}

/* The address the socket is bound to. */
static __always_inline void sock_bound4(struct bpf_sock_addr *ctx, struct dial *d)
{
	struct bpf_sock *sk = ctx->sk;

	if (sk && sk->src_ip4)
		addr_from_v4(&d->key.src, sk->src_ip4);
}

static __always_inline void sock_bound6(struct bpf_sock_addr *ctx, struct dial *d)
{
	struct bpf_sock *sk = ctx->sk;

	if (!sk)
		return;
	d->key.src.w[0] = sk->src_ip6[0];
	d->key.src.w[1] = sk->src_ip6[1];
	d->key.src.w[2] = sk->src_ip6[2];
	d->key.src.w[3] = sk->src_ip6[3];
}

/* An answer for the program: the kernel goes on, or the call fails at once. */
static __always_inline int sock_answer(enum verdict v)
{
	sock_count(v);
	if (v <= VERDICT_TO_REMOTE) /* untouched, or translated */
		return CALL_GOES_ON;
	bpf_set_retval(v == VERDICT_NO_ENDPOINTS || v == VERDICT_NO_PORT ? -ECONNREFUSED
									 : -EHOSTUNREACH);
	return CALL_REFUSED;
}

static __always_inline int sock_call4(struct bpf_sock_addr *ctx, struct dial *d)
{
	struct dialled to;
	enum verdict v;

	d->netns = bpf_get_netns_cookie(ctx);
	v = sock_dial(d, &to);
	if (v == VERDICT_TO_LOCAL || v == VERDICT_TO_REMOTE)
		sock_write4(ctx, &to.addr, to.port);
	else if (d->connect)
		sock_forget(d);
	return sock_answer(v);
}

static __always_inline int sock_call6(struct bpf_sock_addr *ctx, struct dial *d)
{
	struct dialled to;
	enum verdict v;

	d->netns = bpf_get_netns_cookie(ctx);
	v = sock_dial(d, &to);
	if (v == VERDICT_TO_LOCAL || v == VERDICT_TO_REMOTE)
		sock_write6(ctx, &to.addr, to.port);
	else if (d->connect)
		sock_forget(d);
	return sock_answer(v);
}

SEC("cgroup/connect4")
int ebb_connect4(struct bpf_sock_addr *ctx)
{
	struct dial d;

	if (!sock_balances(ctx))
		return sock_answer(VERDICT_NOT_L4);
	sock_read4(ctx, &d);
	sock_bound4(ctx, &d);
	d.connect = true;
	return sock_call4(ctx, &d);
}

SEC("cgroup/connect6")
int ebb_connect6(struct bpf_sock_addr *ctx)
{
	struct dial d;

	if (!sock_balances(ctx))
		return sock_answer(VERDICT_NOT_L4);
	sock_read6(ctx, &d);
	sock_bound6(ctx, &d);
	d.connect = true;
	return sock_call6(ctx, &d);
}

SEC("cgroup/sendmsg4")
int ebb_sendmsg4(struct bpf_sock_addr *ctx)
{
	struct dial d;

	if (!sock_balances(ctx))
		return sock_answer(VERDICT_NOT_L4);
	sock_read4(ctx, &d);
	if (ctx->msg_src_ip4)
		addr_from_v4(&d.key.src, ctx->msg_src_ip4);
	return sock_call4(ctx, &d);
}

SEC("cgroup/sendmsg6")
int ebb_sendmsg6(struct bpf_sock_addr *ctx)
{
	struct dial d;

	if (!sock_balances(ctx))
		return sock_answer(VERDICT_NOT_L4);
	sock_read6(ctx, &d);
	d.key.src.w[0] = ctx->msg_src_ip6[0];
	d.key.src.w[1] = ctx->msg_src_ip6[1];
	d.key.src.w[2] = ctx->msg_src_ip6[2];
	d.key.src.w[3] = ctx->msg_src_ip6[3];
	return sock_call6(ctx, &d);
}

SEC("cgroup/recvmsg4")
int ebb_recvmsg4(struct bpf_sock_addr *ctx)
{
	struct socket_peer *peer;
	struct dial d;

	sock_read4(ctx, &d);
	peer = sock_peer(&d);
	sock_count(peer ? sock_reply_verdict(peer) : VERDICT_NOT_SERVICE);
	if (peer)
		sock_write4(ctx, &peer->addr, peer->port);
	return CALL_GOES_ON;
}

SEC("cgroup/recvmsg6")
int ebb_recvmsg6(struct bpf_sock_addr *ctx)
{
	struct socket_peer *peer;
	struct dial d;

	sock_read6(ctx, &d);
	peer = sock_peer(&d);
	sock_count(peer ? sock_reply_verdict(peer) : VERDICT_NOT_SERVICE);
	if (peer)
		sock_write6(ctx, &peer->addr, peer->port);
	return CALL_GOES_ON;
}

/* Nothing is sent or received here: not counted. */
SEC("cgroup/getpeername4")
int ebb_getpeername4(struct bpf_sock_addr *ctx)
{
	struct socket_peer *peer;
	struct dial d;

	sock_read4(ctx, &d);
	peer = sock_peer(&d);
	if (peer)
		sock_write4(ctx, &peer->addr, peer->port);
	return CALL_GOES_ON;
}

SEC("cgroup/getpeername6")
int ebb_getpeername6(struct bpf_sock_addr *ctx)
{
	struct socket_peer *peer;
	struct dial d;

	sock_read6(ctx, &d);
	peer = sock_peer(&d);
	if (peer)
		sock_write6(ctx, &peer->addr, peer->port);
	return CALL_GOES_ON;
}

SEC("cgroup/sock_release")
int ebb_sock_release(struct bpf_sock *sk)
{
	__be32 v4 = sk->dst_ip4;
	struct dial d;

	if (!sk->dst_port)
		return CALL_GOES_ON;
	/*
	 * Else the compiler loads one word for both families by an offset it chooses
	 * at run time: "dereference of modified ctx ptr" (Linux 6.18).
	 */
	asm volatile("" : "+r"(v4));
	__builtin_memset(&d, 0, sizeof(d));
	d.cookie = bpf_get_socket_cookie(sk);
	d.key.dport = sk->dst_port;
	d.key.proto = sk->protocol;
	if (sk->family == AF_INET) {
		addr_from_v4(&d.key.dst, v4);
	} else {
		d.key.dst.w[0] = sk->dst_ip6[0];
		d.key.dst.w[1] = sk->dst_ip6[1];
		d.key.dst.w[2] = sk->dst_ip6[2];
		d.key.dst.w[3] = sk->dst_ip6[3];
	}
	sock_release(&d);
	return CALL_GOES_ON;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
