//go:build ignore

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Sockets of the node and its pods. Programs with a 6 also see IPv4: a socket of
 * both families connects to v4-mapped addresses, which is what keys hold anyway.
 */
#include "sock.h"

/* What programs of this kind return. */
#define CALL_REFUSED 0
#define CALL_GOES_ON 1

#define ECONNREFUSED 111
#define EHOSTUNREACH 113

#define IPPROTO_MPTCP 262 /* more than the byte of a key */

static __always_inline bool sock_balances(struct bpf_sock_addr *ctx)
{
	return ctx->protocol == IPPROTO_TCP || ctx->protocol == IPPROTO_UDP ||
	       ctx->protocol == IPPROTO_MPTCP;
}

/* What the socket has. Only who is about to be given a backend gets it made. */
static __always_inline struct socket_held *sock_held(struct bpf_sock_addr *ctx, __u64 flags)
{
	struct bpf_sock *sk = ctx->sk;
	struct mptcp_sock *msk;

	if (!sk)
		return NULL;
	if (cfg_mptcp && ctx->protocol == IPPROTO_TCP) {
		msk = bpf_skc_to_mptcp_sock(sk);
		if (msk)
			return bpf_sk_storage_get(&held, msk, NULL, flags);
	}
	return bpf_sk_storage_get(&held, sk, NULL, flags);
}

static __always_inline void sock_read(struct bpf_sock_addr *ctx, struct socket_request *req)
{
	__builtin_memset(req, 0, sizeof(*req));
	req->cookie = bpf_get_socket_cookie(ctx);
	req->key.dport = ctx->user_port;
	req->key.proto = ctx->protocol == IPPROTO_UDP ? IPPROTO_UDP : IPPROTO_TCP;
}

static __always_inline void sock_read4(struct bpf_sock_addr *ctx, struct socket_request *req)
{
	sock_read(ctx, req);
	addr_from_v4(&req->key.dst, ctx->user_ip4);
}

static __always_inline void sock_read6(struct bpf_sock_addr *ctx, struct socket_request *req)
{
	sock_read(ctx, req);
	req->key.dst.w[0] = ctx->user_ip6[0];
	req->key.dst.w[1] = ctx->user_ip6[1];
	req->key.dst.w[2] = ctx->user_ip6[2];
	req->key.dst.w[3] = ctx->user_ip6[3];
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
static __always_inline void sock_bound4(struct bpf_sock_addr *ctx, struct socket_request *req)
{
	struct bpf_sock *sk = ctx->sk;

	if (sk && sk->src_ip4)
		addr_from_v4(&req->key.src, sk->src_ip4);
}

static __always_inline void sock_bound6(struct bpf_sock_addr *ctx, struct socket_request *req)
{
	struct bpf_sock *sk = ctx->sk;

	if (!sk)
		return;
	req->key.src.w[0] = sk->src_ip6[0];
	req->key.src.w[1] = sk->src_ip6[1];
	req->key.src.w[2] = sk->src_ip6[2];
	req->key.src.w[3] = sk->src_ip6[3];
}

static __always_inline bool verdict_to_backend(enum verdict v)
{
	return v == VERDICT_TO_LOCAL || v == VERDICT_TO_REMOTE;
}

/* Untouched, or to a backend. */
static __always_inline bool verdict_goes_on(enum verdict v)
{
	return v <= VERDICT_TO_REMOTE;
}

/* An answer for the program: the kernel goes on, or the call fails at once. */
static __always_inline int sock_answer(enum verdict v)
{
	sock_count(v);
	if (verdict_goes_on(v))
		return CALL_GOES_ON;
	bpf_set_retval(v == VERDICT_NO_ENDPOINTS || v == VERDICT_NO_PORT ? -ECONNREFUSED
									 : -EHOSTUNREACH);
	return CALL_REFUSED;
}

/* What becomes of what the socket had. */
static __always_inline void sock_connects(struct bpf_sock_addr *ctx,
					  const struct socket_request *req, enum verdict v,
					  const struct socket_backend *to)
{
	if (verdict_to_backend(v))
		sock_take(req, to, sock_held(ctx, BPF_SK_STORAGE_GET_F_CREATE));
	else if (verdict_goes_on(v))
		sock_pass(req, sock_held(ctx, 0));
}

static __always_inline int sock_call4(struct bpf_sock_addr *ctx, struct socket_request *req)
{
	struct socket_backend to;
	enum verdict v;

	req->netns = bpf_get_netns_cookie(ctx);
	v = sock_choose(req, &to);
	if (req->connect)
		sock_connects(ctx, req, v, &to);
	if (verdict_to_backend(v))
		sock_write4(ctx, &to.addr, to.port);
	return sock_answer(v);
}

static __always_inline int sock_call6(struct bpf_sock_addr *ctx, struct socket_request *req)
{
	struct socket_backend to;
	enum verdict v;

	req->netns = bpf_get_netns_cookie(ctx);
	v = sock_choose(req, &to);
	if (req->connect)
		sock_connects(ctx, req, v, &to);
	if (verdict_to_backend(v))
		sock_write6(ctx, &to.addr, to.port);
	return sock_answer(v);
}

SEC("cgroup/connect4")
int ebb_connect4(struct bpf_sock_addr *ctx)
{
	struct socket_request req;

	if (!sock_balances(ctx))
		return sock_answer(VERDICT_NOT_L4);
	sock_read4(ctx, &req);
	sock_bound4(ctx, &req);
	req.connect = true;
	return sock_call4(ctx, &req);
}

SEC("cgroup/connect6")
int ebb_connect6(struct bpf_sock_addr *ctx)
{
	struct socket_request req;

	if (!sock_balances(ctx))
		return sock_answer(VERDICT_NOT_L4);
	sock_read6(ctx, &req);
	sock_bound6(ctx, &req);
	req.connect = true;
	return sock_call6(ctx, &req);
}

SEC("cgroup/sendmsg4")
int ebb_sendmsg4(struct bpf_sock_addr *ctx)
{
	struct socket_request req;

	if (!sock_balances(ctx))
		return sock_answer(VERDICT_NOT_L4);
	sock_read4(ctx, &req);
	if (ctx->msg_src_ip4)
		addr_from_v4(&req.key.src, ctx->msg_src_ip4);
	return sock_call4(ctx, &req);
}

SEC("cgroup/sendmsg6")
int ebb_sendmsg6(struct bpf_sock_addr *ctx)
{
	struct socket_request req;

	if (!sock_balances(ctx))
		return sock_answer(VERDICT_NOT_L4);
	sock_read6(ctx, &req);
	req.key.src.w[0] = ctx->msg_src_ip6[0];
	req.key.src.w[1] = ctx->msg_src_ip6[1];
	req.key.src.w[2] = ctx->msg_src_ip6[2];
	req.key.src.w[3] = ctx->msg_src_ip6[3];
	return sock_call6(ctx, &req);
}

SEC("cgroup/recvmsg4")
int ebb_recvmsg4(struct bpf_sock_addr *ctx)
{
	struct socket_peer *peer;
	struct socket_request req;

	sock_read4(ctx, &req);
	peer = sock_peer(&req);
	sock_count(peer ? sock_reply_verdict(peer) : VERDICT_NOT_SERVICE);
	if (peer)
		sock_write4(ctx, &peer->addr, peer->port);
	return CALL_GOES_ON;
}

SEC("cgroup/recvmsg6")
int ebb_recvmsg6(struct bpf_sock_addr *ctx)
{
	struct socket_peer *peer;
	struct socket_request req;

	sock_read6(ctx, &req);
	peer = sock_peer(&req);
	sock_count(peer ? sock_reply_verdict(peer) : VERDICT_NOT_SERVICE);
	if (peer)
		sock_write6(ctx, &peer->addr, peer->port);
	return CALL_GOES_ON;
}

static __always_inline struct socket_peer *sock_peer_asked(struct bpf_sock_addr *ctx,
							   const struct socket_request *req)
{
	struct socket_held *held;

	if (ctx->protocol != IPPROTO_MPTCP)
		return sock_peer(req);
	held = sock_held(ctx, 0);
	return held ? sock_peer_held(req, held) : NULL;
}

/* Nothing is sent or received here: not counted. */
SEC("cgroup/getpeername4")
int ebb_getpeername4(struct bpf_sock_addr *ctx)
{
	struct socket_peer *peer;
	struct socket_request req;

	sock_read4(ctx, &req);
	peer = sock_peer_asked(ctx, &req);
	if (peer)
		sock_write4(ctx, &peer->addr, peer->port);
	return CALL_GOES_ON;
}

SEC("cgroup/getpeername6")
int ebb_getpeername6(struct bpf_sock_addr *ctx)
{
	struct socket_peer *peer;
	struct socket_request req;

	sock_read6(ctx, &req);
	peer = sock_peer_asked(ctx, &req);
	if (peer)
		sock_write6(ctx, &peer->addr, peer->port);
	return CALL_GOES_ON;
}

SEC("cgroup/sock_release")
int ebb_sock_release(struct bpf_sock *sk)
{
	__be32 v4 = sk->dst_ip4;
	struct socket_request req;

	/*
	 * Else the compiler loads one word for both families by an offset it chooses
	 * at run time: "dereference of modified ctx ptr" (Linux 6.18).
	 */
	asm volatile("" : "+r"(v4));
	__builtin_memset(&req, 0, sizeof(req));
	req.cookie = bpf_get_socket_cookie(sk);
	req.key.dport = sk->dst_port;
	req.key.proto = sk->protocol == IPPROTO_UDP ? IPPROTO_UDP : IPPROTO_TCP;
	if (sk->family == AF_INET) {
		addr_from_v4(&req.key.dst, v4);
	} else {
		req.key.dst.w[0] = sk->dst_ip6[0];
		req.key.dst.w[1] = sk->dst_ip6[1];
		req.key.dst.w[2] = sk->dst_ip6[2];
		req.key.dst.w[3] = sk->dst_ip6[3];
	}
	sock_release(&req, bpf_sk_storage_get(&held, sk, NULL, 0));
	return CALL_GOES_ON;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
