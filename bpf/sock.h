/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Sockets: a program on this node that dials a frontend gets a backend, so that
 * no packet has to be rewritten. Touches maps, never a context.
 *
 * Invariants of the map sockets
 *  1. What a socket is given is kept under the backend's address (SOCKET_BACKEND)
 *     before its first packet leaves: what answers is shown as what was dialled.
 *     A backend that a socket has left stays there, for answers on their way.
 *  2. An unconnected socket keeps what it got under what it dialled as well
 *     (SOCKET_DIALLED). Its next datagram stays there while the backend is of the
 *     same generation and service port, not gone, and serving; else it selects
 *     anew, and looks whether the other entry is still its own.
 *  3. Any entry may be evicted. Selection is by socket and address: without
 *     SOCKET_DIALLED a datagram finds the same backend as long as its table is
 *     the same. Without SOCKET_BACKEND an unconnected socket writes it again with
 *     its next datagram; a connected one shows its backend to whoever asks, and is
 *     not closed when it goes.
 *  4. Two threads that dial by one socket at the same time may get two backends
 *     where a table changes in between; both entries are there, see 1.
 *  5. The entry of a connected socket goes with the socket. All others are left
 *     to eviction.
 */
#ifndef EBB_SOCK_H
#define EBB_SOCK_H

#include "address.h"
#include "config.h"
#include "conntrack.h"
#include "select.h"

/* What a program asks for. */
struct dial {
	/* dst, dport, proto: what it dials; src: the client's address, zero if not known yet */
	struct flow_key key;
	__u64 cookie; /* of the socket */
	__u64 netns;  /* cookie of its namespace */
	bool connect; /* the socket keeps what it gets: connect(); else sendmsg() */
};

/* What it is given. */
struct dialled {
	union ip_addr addr;
	__be16 port;
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
static __always_inline bool sock_on_host(const struct dial *d)
{
	struct runtime_values *rt = runtime_get();

	return rt && rt->host_netns && rt->host_netns == d->netns;
}

/* Node ports are on all addresses of the node, and for its own processes on loopback. */
static __always_inline bool sock_to_node(const struct dial *d, __u32 whose)
{
	if (whose & ADDRESS_NODE)
		return true;
	if (!addr_loopback(&d->key.dst) && !addr_any(&d->key.dst))
		return false;
	/* From a loopback address nothing leaves the node, nor its namespace. */
	return !addr_loopback(&d->key.src) && sock_on_host(d);
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
static __always_inline enum verdict sock_miss(const struct dial *d, __u32 whose)
{
	if (d->connect && d->key.proto == IPPROTO_UDP)
		return VERDICT_NOT_SERVICE;
	if (whose & ADDRESS_CLUSTER_IP)
		return VERDICT_NO_PORT;
	return !whose && address_reserved(&d->key.dst) ? VERDICT_UNALLOCATED : VERDICT_NOT_SERVICE;
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
static __always_inline enum verdict sock_admit(const struct dial *d, const struct frontend *fe)
{
	struct flow_key k = d->key;
	struct runtime_values *rt = runtime_get();

	if (addr_absent(&k.src) && !sock_on_host(d))
		return sock_admit_pod(fe);
	/* Who may use the service from here may also do so by its own address. */
	if (addr_absent(&k.src) || (addr_equal(&k.src, &k.dst) && sock_on_host(d))) {
		if (!rt)
			return VERDICT_SOURCE_RANGE;
		k.src = addr_v4_mapped(k.dst.w) ? rt->snat4 : rt->snat6;
	}
	return in_source_ranges(&k, fe) ? VERDICT_NONE : VERDICT_SOURCE_RANGE;
}

/* The key of a socket and an address it talks to. */
static __always_inline void sock_key(const struct dial *d, const union ip_addr *addr, __be16 port,
				     enum socket_way way, struct socket_key *k)
{
	k->cookie = d->cookie;
	k->addr = *addr;
	k->port = port;
	k->proto = d->key.proto;
	k->way = way;
	k->pad = 0;
}

/* What the backend says comes from what was dialled. */
static __always_inline void sock_show(const struct dial *d, const struct backend *b, __u32 index)
{
	struct socket_peer peer = {
		.addr = d->key.dst,
		.port = d->key.dport,
		.backend = index,
		.generation = b->generation,
		.seen = now_tick(),
		.netns = d->netns,
	};
	struct socket_key k;

	sock_key(d, &b->addr, b->port, SOCKET_BACKEND, &k);
	bpf_map_update_elem(&sockets, &k, &peer, BPF_ANY);
}

static __always_inline void sock_keep(const struct dial *d, const struct backend *b, __u32 index)
{
	struct socket_peer peer = {
		.addr = b->addr,
		.port = b->port,
		.backend = index,
		.generation = b->generation,
		.seen = now_tick(),
		.netns = d->netns,
	};
	struct socket_key k;

	sock_key(d, &d->key.dst, d->key.dport, SOCKET_DIALLED, &k);
	bpf_map_update_elem(&sockets, &k, &peer, BPF_ANY);
}

/* The backend an unconnected socket has, or NULL. */
static __always_inline struct backend *sock_kept(const struct dial *d, const struct frontend *fe,
						 __u32 *index)
{
	struct socket_peer *kept, *shown;
	struct backend *b;
	struct socket_key k;
	__u32 pos;

	sock_key(d, &d->key.dst, d->key.dport, SOCKET_DIALLED, &k);
	kept = bpf_map_lookup_elem(&sockets, &k);
	if (!kept)
		return NULL;
	pos = kept->backend;
	b = bpf_map_lookup_elem(&backends, &pos);
	if (!b || b->generation != kept->generation || !backend_usable(b, fe) ||
	    b->flags & BACKEND_UNSERVING)
		return NULL;
	kept->seen = now_tick();
	sock_key(d, &b->addr, b->port, SOCKET_BACKEND, &k);
	shown = bpf_map_lookup_elem(&sockets, &k);
	if (!shown || shown->port != d->key.dport || !addr_equal(&shown->addr, &d->key.dst))
		sock_show(d, b, pos);
	*index = pos;
	return b;
}

/* Who the client is to affinity: its address, else its namespace, as an address no client has. */
static __always_inline void sock_client(const struct dial *d, union ip_addr *client)
{
	*client = d->key.src;
	if (!addr_absent(client))
		return;
	client->w[0] = bpf_htonl(0xff000000); /* multicast */
	client->w[2] = bpf_htonl(d->netns >> 32);
	client->w[3] = bpf_htonl(d->netns);
}

/* Clients on the node reach what is external by the policy Cluster, like from_pod() ones. */
static __always_inline struct backend *sock_select(const struct dial *d, const struct frontend *fe,
						   __u32 *index)
{
	__u8 set = fe->flags & FRONTEND_INTERNAL_LOCAL ? BACKEND_IN_LOCAL : BACKEND_IN_CLUSTER;
	struct flow_key k = d->key;
	__u32 hash;

	k.src.w[0] = d->cookie;
	k.src.w[1] = d->cookie >> 32;
	k.src.w[2] = 0;
	k.src.w[3] = 0;
	hash = flow_hash(&k);
	if (!fe->affinity)
		return select_slot(fe, &fe->cluster, hash, index);
	sock_client(d, &k.src);
	return select_sticky(fe, &k, &fe->cluster, set, hash, index);
}

static __always_inline enum verdict sock_begin(const struct dial *d, const struct frontend *fe,
					       struct backend **found)
{
	struct backend_counts *counts;
	enum verdict v = VERDICT_NONE;
	struct backend *b;
	__u32 index = 0;

	if (fe->flags & FRONTEND_RANGES)
		v = sock_admit(d, fe);
	if (v != VERDICT_NONE)
		return v;
	b = sock_select(d, fe, &index);
	if (!b)
		return select_verdict(fe);
	sock_show(d, b, index);
	if (!d->connect)
		sock_keep(d, b, index);
	counts = bpf_map_lookup_elem(&backend_stats, &index);
	if (counts)
		__sync_fetch_and_add(&counts->opened, 1);
	*found = b;
	return VERDICT_NONE;
}

/* A socket that had a backend, and is now connected to that address as such. */
static __always_inline void sock_forget(const struct dial *d)
{
	struct socket_key k;

	sock_key(d, &d->key.dst, d->key.dport, SOCKET_BACKEND, &k);
	if (bpf_map_lookup_elem(&sockets, &k))
		bpf_map_delete_elem(&sockets, &k);
}

/* What becomes of a call. If the verdict is to a backend, to says which. */
static __always_inline enum verdict sock_dial(const struct dial *d, struct dialled *to)
{
	struct backend *b = NULL;
	struct frontend *fe;
	__u32 whose = 0, index;
	enum verdict v;

	if (cfg_pods_by_packet && !sock_on_host(d))
		return VERDICT_NOT_SERVICE;
	fe = frontend_lookup(&d->key);
	if (!fe) {
		whose = address_flags(&d->key.dst);
		if (sock_to_node(d, whose))
			fe = sock_node_port(&d->key);
	}
	if (!fe)
		return sock_miss(d, whose);
	if (fe->flags & FRONTEND_PACKET && !sock_on_host(d))
		return VERDICT_NOT_SERVICE;
	if (!d->connect)
		b = sock_kept(d, fe, &index);
	if (!b) {
		v = sock_begin(d, fe, &b);
		if (v != VERDICT_NONE || !b)
			return v;
	}
	to->addr = b->addr;
	to->port = b->port;
	return b->flags & BACKEND_LOCAL ? VERDICT_TO_LOCAL : VERDICT_TO_REMOTE;
}

/* What the peer of a socket is known as to its program; NULL: as what it is. */
static __always_inline struct socket_peer *sock_peer(const struct dial *d)
{
	struct socket_key k;

	sock_key(d, &d->key.dst, d->key.dport, SOCKET_BACKEND, &k);
	return bpf_map_lookup_elem(&sockets, &k);
}

static __always_inline enum verdict sock_reply_verdict(const struct socket_peer *peer)
{
	__u32 index = peer->backend;
	struct backend *b = bpf_map_lookup_elem(&backends, &index);

	return b && b->flags & BACKEND_LOCAL ? VERDICT_REPLY_LOCAL : VERDICT_REPLY_REMOTE;
}

/* A socket is closed. */
static __always_inline void sock_release(const struct dial *d)
{
	struct socket_peer *peer = sock_peer(d);
	struct backend_counts *counts;
	struct backend *b;
	struct socket_key k;
	__u32 index;

	if (!peer)
		return;
	index = peer->backend;
	b = bpf_map_lookup_elem(&backends, &index);
	counts = bpf_map_lookup_elem(&backend_stats, &index);
	if (b && counts && b->generation == peer->generation)
		__sync_fetch_and_add(&counts->closed, 1);
	sock_key(d, &d->key.dst, d->key.dport, SOCKET_BACKEND, &k);
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
