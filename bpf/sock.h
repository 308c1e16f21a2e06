/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Sockets: a program on this node that connects to a frontend gets a backend, so that
 * no packet has to be rewritten. Touches maps, never a context.
 *
 * Invariants of the maps sockets and held
 *  1. What a socket is given is kept under the backend's address (SOCKET_BACKEND)
 *     before its first packet leaves: what answers is shown as the frontend.
 *     The entry of a backend that a socket has left stays, for answers on their way
 *     and for a reconnect that fails: of a connected socket the last one, of an
 *     unconnected one all of them, until they are evicted.
 *  2. An unconnected socket keeps what it got under the frontend as well
 *     (SOCKET_DIALLED). Its next datagram stays there while the backend is of the
 *     same generation and service port, not gone, and serving; else it selects
 *     anew, and looks whether the other entry is still its own.
 *  3. Any entry of sockets may be evicted. Selection is by socket and address:
 *     without SOCKET_DIALLED a datagram finds the same backend as long as its table
 *     is the same. Without SOCKET_BACKEND an unconnected socket writes it again with
 *     its next datagram; a connected one shows its backend to whoever asks, and is
 *     not closed when it goes. held is part of the socket: never evicted.
 *  4. connect() writes held, under the lock of the socket, whatever becomes of
 *     the connection afterwards. socket_opened counts when it is given a backend,
 *     socket_closed when that is taken away again: by the next connect() that goes
 *     on, or when the last descriptor is closed. Both count by its index, whatever
 *     the generation, and each happens once: socket_opened - socket_closed is the
 *     number of sockets whose entry has a cookie. A socket without one (no
 *     memory left) is not counted at all. A connection that failed, or was undone by
 *     connect(AF_UNSPEC), counts until one of the two: no program runs before.
 *     sendmsg() of unconnected sockets has no end, and is not counted.
 *  5. The entries of a connected socket go with the socket, also if it is not
 *     connected any more, or never was. All others are left to eviction.
 *  6. Threads that connect one datagram socket at the same time may end with the
 *     backend of one and the entry of the other: that one is then the backend left.
 *     Two that send by it may get two backends where a table changes in between:
 *     both entries are there, see 1.
 *  7. The connect() of an MPTCP socket is seen as that of its first subflow, a TCP
 *     socket; getpeername() and close() as those of the MPTCP socket. held is
 *     the MPTCP socket's, and names the subflow.
 */
#ifndef EBB_SOCK_H
#define EBB_SOCK_H

#include "abi/config.h"
#include "flow/address.h"
#include "flow/entry.h"
#include "flow/select.h"

/* What a program asks for. */
struct socket_request {
	/* dst, dport, proto: the frontend; src: the client's address, zero if not known yet */
	struct flow_key key;
	__u64 cookie; /* of the socket */
	__u64 netns;  /* cookie of its namespace */
	bool connect; /* the socket keeps what it gets: connect(); else sendmsg() */
};

/* What it is given. */
struct socket_backend {
	union ip_addr addr;
	__be16 port;
	__u32 backend; /* index */
	__u32 generation;
};

static __always_inline bool addr_any(const union ip_addr *a)
{
	return !a->w[0] && !a->w[1] && !a->w[3] && (!a->w[2] || a->w[2] == bpf_htonl(0xffff));
}

static __always_inline bool addr_loopback(const union ip_addr *a)
{
	if (addr_v4_mapped(a->w))
		return a->b[12] == 127;
	return !a->w[0] && !a->w[1] && !a->w[2] && a->w[3] == bpf_htonl(1);
}

/* Whether it is a process of the node itself, not one of a pod. */
static __always_inline bool sock_on_host(const struct socket_request *req)
{
	struct runtime_values *rt = runtime_get();

	return rt && rt->host_netns && rt->host_netns == req->netns;
}

/* Node ports are on all addresses of the node, and for its own processes on loopback. */
static __always_inline bool sock_to_node(const struct socket_request *req, __u32 whose)
{
	if (whose & ADDRESS_NODE)
		return true;
	if (!addr_loopback(&req->key.dst) && !addr_any(&req->key.dst))
		return false;
	/* From a loopback address nothing leaves the node, nor its namespace. */
	return !addr_loopback(&req->key.src) && sock_on_host(req);
}

static __always_inline struct frontend *sock_node_port(const struct flow_key *k)
{
	struct frontend_key fk = {
		.port = k->dport,
		.proto = k->proto,
		.any = 1,
	};

	if (addr_v4_mapped(k->dst.w))
		fk.addr.w[2] = bpf_htonl(0xffff);
	return bpf_map_lookup_elem(&frontends, &fk);
}

/*
 * No frontend. Connecting a datagram socket sends nothing, and resolvers do it
 * with any port to learn which address they would use: that goes on.
 */
static __always_inline enum verdict sock_miss(const struct socket_request *req, __u32 whose)
{
	if (req->connect && req->key.proto == IPPROTO_UDP)
		return VERDICT_NOT_SERVICE;
	if (whose & ADDRESS_CLUSTER_IP)
		return VERDICT_NO_PORT;
	return !whose && address_reserved(&req->key.dst) ? VERDICT_UNALLOCATED
							 : VERDICT_NOT_SERVICE;
}

/*
 * Of a pod nothing is known but that it is one: if that does not decide, its
 * packets are left to those who see them.
 */
static __always_inline enum verdict sock_admit_pod(const struct frontend *fe)
{
	if (fe->flags & FRONTEND_PODS_IN)
		return VERDICT_NONE;
	return fe->flags & FRONTEND_PODS_OUT ? VERDICT_SOURCE_RANGE : VERDICT_NOT_SERVICE;
}

/*
 * Whether source ranges let the client in. As a rule the kernel chooses its
 * address after it was asked where to connect to. For the node it is then taken
 * to be the node's first one.
 */
static __always_inline enum verdict sock_admit(const struct socket_request *req,
					       const struct frontend *fe)
{
	struct flow_key k = req->key;
	struct runtime_values *rt = runtime_get();

	if (addr_absent(&k.src) && !sock_on_host(req))
		return sock_admit_pod(fe);
	/* Who may use the service from here may also do so by its own address. */
	if (addr_absent(&k.src) || (addr_equal(&k.src, &k.dst) && sock_on_host(req))) {
		if (!rt)
			return VERDICT_SOURCE_RANGE;
		k.src = addr_v4_mapped(k.dst.w) ? rt->snat4 : rt->snat6;
	}
	return in_source_ranges(&k, fe) ? VERDICT_NONE : VERDICT_SOURCE_RANGE;
}

/* The key of a socket and an address it talks to. */
static __always_inline void sock_key(const struct socket_request *req, const union ip_addr *addr,
				     __be16 port, enum socket_way way, struct socket_key *k)
{
	k->cookie = req->cookie;
	k->addr = *addr;
	k->port = port;
	k->proto = req->key.proto;
	k->way = way;
	k->pad = 0;
}

/* What the backend says comes from the frontend. */
static __always_inline void sock_show(const struct socket_request *req,
				      const struct socket_backend *to)
{
	struct socket_peer peer = {
		.addr = req->key.dst,
		.port = req->key.dport,
		.backend = to->backend,
		.generation = to->generation,
		.seen = now_tick(),
		.netns = req->netns,
	};
	struct socket_key k;

	sock_key(req, &to->addr, to->port, SOCKET_BACKEND, &k);
	bpf_map_update_elem(&sockets, &k, &peer, BPF_ANY);
}

static __always_inline void sock_keep(const struct socket_request *req,
				      const struct socket_backend *to)
{
	struct socket_peer peer = {
		.addr = to->addr,
		.port = to->port,
		.backend = to->backend,
		.generation = to->generation,
		.seen = now_tick(),
		.netns = req->netns,
	};
	struct socket_key k;

	sock_key(req, &req->key.dst, req->key.dport, SOCKET_DIALLED, &k);
	bpf_map_update_elem(&sockets, &k, &peer, BPF_ANY);
}

static __always_inline void sock_give(const struct backend *b, __u32 index,
				      struct socket_backend *to)
{
	to->addr = b->addr;
	to->port = b->port;
	to->backend = index;
	to->generation = b->generation;
}

/* The backend an unconnected socket has, or NULL. */
static __always_inline struct backend *
sock_kept(const struct socket_request *req, const struct frontend *fe, struct socket_backend *to)
{
	struct socket_peer *kept, *shown;
	struct backend *b;
	struct socket_key k;
	__u32 pos;

	sock_key(req, &req->key.dst, req->key.dport, SOCKET_DIALLED, &k);
	kept = bpf_map_lookup_elem(&sockets, &k);
	if (!kept)
		return NULL;
	pos = kept->backend;
	b = bpf_map_lookup_elem(&backends, &pos);
	if (!b || b->generation != kept->generation || !backend_usable(b, fe) ||
	    b->flags & BACKEND_UNSERVING)
		return NULL;
	kept->seen = now_tick();
	sock_give(b, pos, to);
	sock_key(req, &to->addr, to->port, SOCKET_BACKEND, &k);
	shown = bpf_map_lookup_elem(&sockets, &k);
	if (!shown || shown->port != req->key.dport || !addr_equal(&shown->addr, &req->key.dst))
		sock_show(req, to);
	return b;
}

/* Who the client is to affinity: its address, else its namespace, as an address no client has. */
static __always_inline void sock_client(const struct socket_request *req, union ip_addr *client)
{
	*client = req->key.src;
	if (!addr_absent(client))
		return;
	client->w[0] = bpf_htonl(0xff000000); /* multicast */
	client->w[2] = bpf_htonl(req->netns >> 32);
	client->w[3] = bpf_htonl(req->netns);
}

/* Clients on the node reach what is external by the policy Cluster, like pods at their links. */
static __always_inline struct backend *sock_select(const struct socket_request *req,
						   const struct frontend *fe, __u32 *index)
{
	__u8 set = fe->flags & FRONTEND_INTERNAL_LOCAL ? BACKEND_IN_LOCAL : BACKEND_IN_CLUSTER;
	struct flow_key k = req->key;
	union ip_addr client;
	struct backend *b;
	__u32 hash;

	k.src.w[0] = req->cookie;
	k.src.w[1] = req->cookie >> 32;
	k.src.w[2] = 0;
	k.src.w[3] = 0;
	hash = flow_hash(&k);
	if (!fe->affinity)
		return select_slot(fe, &fe->cluster, hash, index);
	sock_client(req, &client);
	b = select_sticky(fe, &client, &fe->cluster, set, index);
	if (b)
		affinity_keep(&client, fe->service_port, *index, b->generation);
	return b;
}

static __always_inline enum verdict sock_begin(const struct socket_request *req,
					       const struct frontend *fe, struct backend **found,
					       struct socket_backend *to)
{
	enum verdict v = VERDICT_NONE;
	struct backend *b;
	__u32 index = 0;

	if (fe->flags & FRONTEND_RANGES)
		v = sock_admit(req, fe);
	if (v != VERDICT_NONE)
		return v;
	b = sock_select(req, fe, &index);
	if (!b)
		return select_verdict(fe);
	sock_give(b, index, to);
	if (!req->connect) {
		sock_show(req, to);
		sock_keep(req, to);
	}
	*found = b;
	return VERDICT_NONE;
}

static __always_inline bool socket_key_equal(const struct socket_key *a, const struct socket_key *b)
{
	return a->cookie == b->cookie && a->port == b->port && a->proto == b->proto &&
	       addr_equal(&a->addr, &b->addr);
}

/* A connected socket has its backend no more. The entry stays as that of the one before. */
static __always_inline void sock_leave(struct socket_held *held)
{
	struct backend_counts *counts;
	__u32 index = held->backend;

	if (!held->entry.cookie)
		return;
	counts = bpf_map_lookup_elem(&backend_stats, &index);
	if (counts)
		__sync_fetch_and_add(&counts->socket_closed, 1);
	if (held->left.cookie && !socket_key_equal(&held->left, &held->entry))
		bpf_map_delete_elem(&sockets, &held->left);
	held->left = held->entry;
	held->entry.cookie = 0;
}

/* A socket connects to a backend. held may be NULL. */
static __always_inline void sock_take(const struct socket_request *req,
				      const struct socket_backend *to, struct socket_held *held)
{
	struct backend_counts *counts;
	__u32 index = to->backend;

	if (held) {
		sock_leave(held);
		sock_key(req, &to->addr, to->port, SOCKET_BACKEND, &held->entry);
		held->backend = index;
		if (socket_key_equal(&held->left, &held->entry))
			held->left.cookie = 0;
		counts = bpf_map_lookup_elem(&backend_stats, &index);
		if (counts)
			__sync_fetch_and_add(&counts->socket_opened, 1);
	}
	sock_show(req, to);
}

/*
 * A socket connects to an address as such, which may be that of a backend it had.
 * An MPTCP socket that has a backend adds a subflow: that takes nothing away.
 */
static __always_inline void sock_pass(const struct socket_request *req, struct socket_held *held)
{
	struct socket_key k;

	if (held && held->entry.cookie == req->cookie)
		sock_leave(held);
	sock_key(req, &req->key.dst, req->key.dport, SOCKET_BACKEND, &k);
	if (bpf_map_lookup_elem(&sockets, &k))
		bpf_map_delete_elem(&sockets, &k);
}

/* What becomes of a call. If the verdict is to a backend, to says which. */
static __always_inline enum verdict sock_choose(const struct socket_request *req,
						struct socket_backend *to)
{
	struct backend *b = NULL;
	struct frontend *fe;
	__u32 whose = 0;
	enum verdict v;

	if (cfg_pods_by_packet && !sock_on_host(req))
		return VERDICT_NOT_SERVICE;
	fe = frontend_lookup(&req->key);
	if (!fe) {
		whose = address_flags(&req->key.dst);
		if (sock_to_node(req, whose))
			fe = sock_node_port(&req->key);
	}
	if (!fe)
		return sock_miss(req, whose);
	if (fe->flags & FRONTEND_PACKET && !sock_on_host(req))
		return VERDICT_NOT_SERVICE;
	if (!req->connect)
		b = sock_kept(req, fe, to);
	if (!b) {
		v = sock_begin(req, fe, &b, to);
		if (v != VERDICT_NONE || !b)
			return v;
	}
	return b->flags & BACKEND_LOCAL ? VERDICT_TO_LOCAL : VERDICT_TO_REMOTE;
}

/* What the peer of a socket is known as to its program; NULL: as what it is. */
static __always_inline struct socket_peer *sock_peer(const struct socket_request *req)
{
	struct socket_key k;

	sock_key(req, &req->key.dst, req->key.dport, SOCKET_BACKEND, &k);
	return bpf_map_lookup_elem(&sockets, &k);
}

/* The same where the entry has another cookie: see 7. */
static __always_inline struct socket_peer *sock_peer_held(const struct socket_request *req,
							  struct socket_held *held)
{
	struct socket_key *k = &held->entry;

	if (!k->cookie || k->port != req->key.dport || !addr_equal(&k->addr, &req->key.dst))
		return NULL;
	return bpf_map_lookup_elem(&sockets, k);
}

static __always_inline enum verdict sock_reply_verdict(const struct socket_peer *peer)
{
	__u32 index = peer->backend;
	struct backend *b = bpf_map_lookup_elem(&backends, &index);

	return b && b->flags & BACKEND_LOCAL ? VERDICT_REPLY_LOCAL : VERDICT_REPLY_REMOTE;
}

/* A socket is closed. held may be NULL. */
static __always_inline void sock_release(const struct socket_request *req, struct socket_held *held)
{
	struct socket_key k;

	if (held) {
		sock_leave(held);
		if (held->left.cookie)
			bpf_map_delete_elem(&sockets, &held->left);
		return;
	}
	if (!req->key.dport)
		return;
	sock_key(req, &req->key.dst, req->key.dport, SOCKET_BACKEND, &k);
	if (bpf_map_lookup_elem(&sockets, &k))
		bpf_map_delete_elem(&sockets, &k);
}

/* Unlike at other hooks, another one may run on this CPU in between. */
static __always_inline void sock_count(enum verdict v)
{
	__u32 key = HOOK_SOCKET * VERDICT_MAX + v;
	__u64 *counter = bpf_map_lookup_elem(&counters, &key);

	if (counter)
		__sync_fetch_and_add(counter, 1);
}

#endif
