/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Layouts shared with Go; bpf2go generates the other half. What is defined
 * here is what pinned maps hold, so it is ABI: a change of any layout needs a
 * new LAYOUT_VERSION in maps/layout.go and a note in docs/maps.md.
 */
#ifndef EBB_ABI_TYPES_H
#define EBB_ABI_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <linux/types.h>

/* An address of either family; IPv4 is v4-mapped (::ffff:a.b.c.d). */
union ip_addr {
	__u8 b[16]; /* first member, so that Go sees bytes */
	__be32 w[4];
};

/* The tuple of a packet as it is on the wire. */
struct flow_key {
	union ip_addr src;
	union ip_addr dst;
	__be16 sport;
	__be16 dport;
	__u8 proto;
	__u8 pad[3];
};
_Static_assert(sizeof(struct flow_key) == 40, "flow_key has holes");

/*
 * Bits of flow.flags. A connection is two entries, one per direction; the
 * TCP bits are kept on both so that each knows the state of the whole.
 */
enum flow_flag {
	FLOW_REVERSE = 1 << 0, /* from the backend to the client */
	FLOW_REMOTE = 1 << 1, /* backend elsewhere; unless FLOW_POD routed here, source rewritten */
	FLOW_FIN = 1 << 2,    /* FIN seen in this entry's direction */
	FLOW_PEER_FIN = 1 << 3,  /* FIN seen in the other direction */
	FLOW_RST = 1 << 4,       /* valid RST seen in this entry's direction */
	FLOW_PEER_RST = 1 << 5,  /* valid RST seen in the other direction */
	FLOW_CLOSED = 1 << 6,    /* it is on its way out of flows; on the forward entry: counted */
	FLOW_REPLIED = 1 << 7,   /* in half_open: the backend has answered */
	FLOW_POD = 1 << 8,       /* begun at a pod's link, and acts there only */
	FLOW_HAIRPIN = 1 << 9,   /* with FLOW_POD: the backend is the client, source rewritten */
	FLOW_STREAM = 1 << 10,   /* UDP: has lasted two seconds, see TIMEOUT_UDP_STREAM */
	FLOW_STICKY = 1 << 11,   /* its frontend has session affinity */
	FLOW_TAKEN = 1 << 12,    /* in half_open: being established, or given to another flow */
	FLOW_MIDWAY = 1 << 13,   /* in half_open: begun by the middle of a connection */
	FLOW_PROVED = 1 << 14,   /* in half_open: established, but flows is full */
	FLOW_AGAIN = 1 << 15,    /* in half_open: answered, and another number has come since */
	FLOW_OCCUPIED = 1 << 16, /* in half_open: the backend has another connection by its tuple */
	FLOW_OUTWARD = 1 << 17,  /* a guest that comes from the node's side, see guest.h */
	FLOW_GUEST = 1 << 18,    /* any other one */
	FLOW_REROUTE = 1 << 19, /* backend here: answers go by the route of the service's address */
};

/*
 * Seconds a flow may be silent in both directions before it is over: the one
 * place, for the datapath and for what collects. Established TCP, half-closed
 * TCP and UDP as in netfilter (nf_conntrack_tcp_timeout_established is 5 days
 * there, kube-proxy sets 24 hours, and 1 hour for CLOSE_WAIT). SCTP: an idle
 * association sends a heartbeat every 30 s (RFC 9260, 16); seven may be missed.
 */
enum flow_timeout {
	TIMEOUT_ESTABLISHED = 86400, /* TCP */
	TIMEOUT_HALF_CLOSED = 3600,  /* TCP after the FIN of one side */
	TIMEOUT_SCTP = 210,
	TIMEOUT_UDP = 30,
	TIMEOUT_UDP_STREAM = 180, /* once it has carried three datagrams over two seconds */
	/* In half_open. */
	TIMEOUT_HANDSHAKE = 20, /* TCP */
	TIMEOUT_UNPROVED = 30,  /* UDP; SCTP, whose pauses between repetitions are longer */
	TIMEOUT_UNANSWERED = 3, /* then given up where ports are short */
	/* In closed: as long as netfilter's TIME_WAIT is by default in kube-proxy's clusters. */
	TIMEOUT_CLOSED = 60,
	TIMEOUT_REUSE = 3, /* then given up where ports are short */
	/* In backend_filter: longer than any flow lives without a packet. */
	TIMEOUT_FILTER = 93600,
};

/* Bits of flow.route: who may use the cached route. Cleared when it may have changed, see
 * route/route.h.
 */
enum route_flag {
	ROUTE_XDP = 1 << 0,
	ROUTE_TC = 1 << 1,
	ROUTE_NOT_XDP = 1 << 2, /* XDP has tried: this one is for TC */
};
#define ROUTE_TAG_SHIFT 4 /* above: the VLAN tag of the packets ROUTE_XDP is for; 0: none */

/*
 * All a packet of one direction needs. src/dst/sport/dport are what the packet
 * carries after translation. Together with its key an entry determines its
 * counterpart completely: see flow_mirror().
 */
struct flow {
	/*
	 * Of its key, see tuple_tag(). First, because it is written first when the element
	 * is used again, perhaps under a packet that still reads it.
	 */
	__u32 tag;
	__be16 sport;
	__be16 dport;
	union ip_addr src;
	union ip_addr dst;
	__u16 csum_addr;  /* what the rewrite of addresses adds to a checksum */
	__u16 csum_port;  /* what the rewrite of ports adds to a checksum */
	__u32 backend;    /* index into backends */
	__u32 generation; /* generation of that backend when the flow began */
	__u32 seen;       /* tick of the last packet in this direction */
	/*
	 * TCP: the last acknowledgement number of this direction, host order. SCTP: the
	 * verification tag of its packets. In half_open: the number or tag that proves
	 * the next packet of this direction to be an answer to the other's last.
	 */
	__u32 ack;
	/* TCP: the sequence number behind this direction's last segment. In half_open, SCTP,
	 * forward: the tag of the other direction. */
	__u32 end;
	__u32 began;   /* tick of the first packet; in closed: of the end */
	__u32 flags;   /* enum flow_flag */
	__u32 ifindex; /* cached route: device */
	__u16 mtu;     /* cached route: MTU in bytes, layer 3 */
	__u16 route;   /* enum route_flag */
	__u32 macs[3]; /* cached route: destination, source, as in the frame */
	__u32 pad;
};
_Static_assert(sizeof(struct flow) == 96, "flow has holes");

/* A flow that is not proved yet: a handshake under way, or datagrams without a reply. */
struct half_flow {
	struct flow flow;
	__u64 since; /* CLOCK_MONOTONIC ns of the SYN; 0: not timed */
};
_Static_assert(sizeof(struct half_flow) == 104, "half_flow has holes");

/* The backend that the flow of a client's tuple was last given. */
struct given_backend {
	__u32 tag; /* of the tuple's hash */
	__u32 backend;
};
_Static_assert(sizeof(struct given_backend) == 8, "given_backend has holes");

/* How full flows is. */
struct flows_pressure {
	__u32 refused; /* tick of the last insert that was refused because it was full; 0: none */
	__u32 swept;   /* tick of the last sweep */
};
_Static_assert(sizeof(struct flows_pressure) == 8, "flows_pressure has holes");

/* What clients connect to. */
struct frontend_key {
	union ip_addr addr;
	__be16 port;
	__u8 proto;
	__u8 any; /* 1: any address of this node; addr is unspecified, no packet asks for it */
};
_Static_assert(sizeof(struct frontend_key) == 20, "frontend_key has holes");

/* A lookup table: a region of slots. */
struct table {
	__u32 offset;
	__u32 length; /* 0: no candidates */
};

enum frontend_flag {
	FRONTEND_LOCAL = 1 << 0,          /* clients from outside use the local table */
	FRONTEND_INTERNAL_LOCAL = 1 << 1, /* the cluster table holds the local candidates */
	FRONTEND_RANGES = 1 << 2,         /* clients must be in source_ranges */
	FRONTEND_ENDPOINTS = 1 << 3,      /* somewhere are endpoints: without candidates, drop */
	FRONTEND_NODE_PORT = 1 << 4,      /* a node port */
	FRONTEND_PACKET = 1 << 5,         /* sockets leave it to pod links */
	FRONTEND_PODS_IN = 1 << 6,        /* with FRONTEND_RANGES: all pods are in them */
	FRONTEND_PODS_OUT = 1 << 7,       /* with FRONTEND_RANGES: no pod is in them */
};

struct frontend {
	__u32 service_port; /* key into service_ports */
	__u32 flags;        /* enum frontend_flag */
	struct table cluster;
	struct table local;
	__u32 affinity; /* how long a client keeps its backend, seconds; 0: it does not */
};
_Static_assert(sizeof(struct frontend) == 28, "frontend has holes");

/* Who may use the frontends of a service port with FRONTEND_RANGES. */
struct source_range_key {
	__u32 prefix; /* bits of what follows that count: 64 and those of the address */
	__u32 service_port;
	__u32 v4; /* short IPv6 ranges must not contain all that is v4-mapped */
	union ip_addr addr;
};
_Static_assert(sizeof(struct source_range_key) == 28, "source_range_key has holes");

/* Bits of a value in addresses: whose an address is. */
enum address_flag {
	ADDRESS_CLUSTER_IP = 1 << 0, /* a ClusterIP: other ports of it are rejected */
	ADDRESS_EXTERNAL = 1 << 1,   /* of a load balancer, or an external IP */
	ADDRESS_NODE = 1 << 2,       /* of this node */
};

/* A range of service addresses. */
struct cidr_key {
	__u32 prefix; /* bits of what follows that count: 32 and those of the address */
	__u32 v4;     /* as above */
	union ip_addr addr;
};
_Static_assert(sizeof(struct cidr_key) == 24, "cidr_key has holes");

/* What all fragments of one datagram have in common. */
struct fragment_key {
	union ip_addr src;
	union ip_addr dst;
	__u32 id; /* as on the wire */
	__u8 proto;
	__u8 pad[3];
};
_Static_assert(sizeof(struct fragment_key) == 40, "fragment_key has holes");

/* What only the first of them has. */
struct fragment_ports {
	__be16 sport;
	__be16 dport;
	__u32 seen; /* tick */
};
_Static_assert(sizeof(struct fragment_ports) == 8, "fragment_ports has holes");

enum socket_way {
	SOCKET_DIALLED = 0, /* the key is the frontend, the value its backend */
	SOCKET_BACKEND = 1, /* the key is the backend, the value the frontend */
};

/* A socket and an address it talks to, or believes to talk to. */
struct socket_key {
	__u64 cookie;
	union ip_addr addr;
	__be16 port;
	__u8 proto;
	__u8 way; /* enum socket_way */
	__u32 pad;
};
_Static_assert(sizeof(struct socket_key) == 32, "socket_key has holes");

struct socket_peer {
	union ip_addr addr;
	__be16 port;
	__u16 pad;
	__u32 backend;
	__u32 generation;
	__u32 seen;  /* tick of the last look */
	__u64 netns; /* cookie of the socket's network namespace */
};
_Static_assert(sizeof(struct socket_peer) == 40, "socket_peer has holes");

/* What a connected socket has, kept with the socket itself: see sock.h. */
struct socket_held {
	struct socket_key entry; /* of its backend in sockets; cookie 0: it has none */
	struct socket_key left;  /* of the backend before it; cookie 0: there is none */
	__u32 backend;           /* index of the backend it has */
	__u32 pad;
};
_Static_assert(sizeof(struct socket_held) == 72, "socket_held has holes");

/* A client and the service port it has a backend of. */
struct affinity_key {
	union ip_addr client;
	__u32 service_port;
};
_Static_assert(sizeof(struct affinity_key) == 20, "affinity_key has holes");

struct affinity_value {
	__u32 backend;
	__u32 generation;
	__u32 used; /* when the last connection began, CLOCK_MONOTONIC seconds */
};
_Static_assert(sizeof(struct affinity_value) == 12, "affinity_value has holes");

/* The name behind an id, so that tools need no API server. NUL padded. */
struct service_port {
	__u8 namespace[64];
	__u8 service[64];
	__u8 port[64];
	__u8 proto;
	__u8 pad[3];
};
_Static_assert(sizeof(struct service_port) == 196, "service_port has holes");

/* Order is ABI: values live in pinned maps across upgrades. */
enum backend_state {
	BACKEND_FREE = 0,     /* never used, or forgotten */
	BACKEND_ACTIVE = 1,   /* takes new and established flows */
	BACKEND_DRAINING = 2, /* established flows; new ones only if a table names it */
	BACKEND_GONE = 3,     /* left the slices; kept until its index is reused */
};

enum backend_flag {
	BACKEND_LOCAL = 1 << 0,      /* runs on this node */
	BACKEND_IN_CLUSTER = 1 << 1, /* a candidate of the policy Cluster */
	BACKEND_IN_LOCAL = 1 << 2,   /* a candidate of the policy Local */
	BACKEND_UNSERVING = 1 << 3,  /* not ready, but others are: datagrams go to them */
	BACKEND_ELSEWHERE = 1 << 4,  /* runs on another node; without BACKEND_LOCAL: not known */
	BACKEND_MOVED = 1 << 5,      /* gone, and its address has come to or left this node */
};

struct backend {
	union ip_addr addr;
	__be16 port;
	__u8 state; /* enum backend_state */
	__u8 flags; /* enum backend_flag */
	__u32 generation;
	__u32 service_port;
};
_Static_assert(sizeof(struct backend) == 28, "backend has holes");

#define LATENCY_BUCKETS 20 /* bucket i: [2^i, 2^(i+1)) microseconds; the last takes the rest */

/* Per CPU; only the datapath writes it. */
struct backend_counts {
	__u64 opened;        /* flows that entered the map flows */
	__u64 closed;        /* flows that left it: closed, reset, silent for too long, moved */
	__u64 socket_opened; /* sockets of this node connected to a frontend */
	__u64 socket_closed; /* those of them that were closed, or connected elsewhere */
	__u64 packets;       /* towards the backend */
	__u64 bytes;         /* towards the backend, layer 3 */
	__u64 rx_packets;    /* from the backend */
	__u64 rx_bytes;
	__u32 handshake[LATENCY_BUCKETS]; /* SYN forwarded to SYN-ACK seen, one of 8 */
};
_Static_assert(sizeof(struct backend_counts) == 144, "backend_counts has holes");

/* The few values that change while programs run. */
struct runtime_values {
	union ip_addr snat4; /* source of flows sent to other nodes by a device without address */
	union ip_addr snat6;
	__u64 host_netns; /* cookie of the node's network namespace; 0: not known */
	__u64 node_bits;  /* a filter of the node's addresses, see address_may_be_own() */
	/*
	 * The smallest range of each family that contains all service_cidrs and
	 * ClusterIPs: asked before those maps are. A mask of 0 means any address.
	 */
	__be32 services4_net;
	__be32 services4_mask;
	union ip_addr services6_net;
	union ip_addr services6_mask;
};
_Static_assert(sizeof(struct runtime_values) == 88, "runtime_values has holes");

enum device_flag {
	DEVICE_XDP_TX = 1 << 0,  /* XDP may send through it, or its lower device */
	DEVICE_AWAY = 1 << 1,    /* leads to other machines only: none of our pods is there */
	DEVICE_ANSWERS = 1 << 2, /* is no uplink: nothing begins there */
	DEVICE_STACKED = 1 << 3, /* programs of devices below have looked at what comes in */
};

/* A device with programs, or one above it: packets may leave by it, answers come in by it. */
struct device {
	__u32 lower;   /* VLAN device: the device below it; else 0 */
	__u16 vlan_id; /* VLAN device: its tag, host order; else 0 */
	__u16 flags;   /* enum device_flag */
	/* Source of the flows that leave by it; absent: the node's. */
	union ip_addr snat4;
	union ip_addr snat6;
};
_Static_assert(sizeof(struct device) == 40, "device has holes");

/* An address that frames for this node are sent to, on the wire of a device. */
struct station_key {
	__u32 ifindex; /* where the frame comes in */
	__u16 vlan_id; /* its tag, host order; 0: none */
	__u8 mac[6];
};
_Static_assert(sizeof(struct station_key) == 12, "station_key has holes");

/* What the agent knows of the kernel's routes, see route/route.h. */
struct route_state {
	__u32 changed; /* tick: what was looked up until then is looked up again */
	__u32 until;   /* tick until which changes are told and neighbours are kept fresh */
	__u32 flags;   /* enum route_state_flag */
	__u32 pad;
};
_Static_assert(sizeof(struct route_state) == 16, "route_state has holes");

enum route_state_flag {
	ROUTES_MULTIPATH = 1 << 0, /* there may be routes with several paths */
	ROUTES_BY_SOURCE = 1 << 1, /* there may be rules that look at a packet's source */
	ROUTES_SECURED = 1 << 2,   /* there is something in secured */
};

/* A next hop that packets are sent to. */
struct neighbour_key {
	union ip_addr addr;
	__u32 ifindex;
};
_Static_assert(sizeof(struct neighbour_key) == 20, "neighbour_key has holes");

struct neighbour {
	__u32 used;   /* tick of the last look-up of a route that leads to it */
	__u32 probed; /* tick of the last packet that went by the kernel's neighbour code */
};
_Static_assert(sizeof(struct neighbour) == 8, "neighbour has holes");

enum hook {
	HOOK_XDP = 0,
	HOOK_TC_INGRESS = 1,
	HOOK_TC_EGRESS = 2,
	HOOK_SOCKET = 3,
	HOOK_POD_INGRESS = 4,
	HOOK_POD_EGRESS = 5,
	HOOK_COUNT = 6,
};

/*
 * Why a packet left ebb the way it did. Append only: values are counter
 * indexes and metric labels. Retire in place, never renumber.
 */
enum verdict {
	VERDICT_NONE = 0, /* never counted */
	/* passed untouched */
	VERDICT_NOT_IP = 1,
	VERDICT_NOT_L4 = 2,    /* a protocol ebb does not balance */
	VERDICT_MALFORMED = 3, /* truncated or contradictory headers */
	VERDICT_FRAGMENT = 4,
	VERDICT_EXT_HEADERS = 5, /* IPv6 extension headers beyond what is parsed */
	VERDICT_NOT_SERVICE = 6,
	VERDICT_LEFT_TO_TC = 7, /* XDP cannot finish it; TC on the same device will */
	/* translated */
	VERDICT_TO_LOCAL = 8,      /* to a backend on this node */
	VERDICT_TO_REMOTE = 9,     /* to a backend on another node */
	VERDICT_REPLY_LOCAL = 10,  /* from a backend on this node to its client */
	VERDICT_REPLY_REMOTE = 11, /* from a backend on another node to its client */
	/* dropped */
	VERDICT_NO_BACKEND = 12,     /* no candidates for this client, endpoints elsewhere */
	VERDICT_NO_FLOW = 13,        /* the middle of an unknown connection */
	VERDICT_SNAT_EXHAUSTED = 14, /* no source port left towards this backend */
	VERDICT_FLOW_CONFLICT = 15,  /* the other half's tuple belongs to another flow now */
	VERDICT_MAP_FULL = 16,       /* a flow entry could not be written */
	VERDICT_NO_ROUTE = 17,
	VERDICT_TTL_EXPIRED = 18,    /* answered with ICMP time exceeded */
	VERDICT_TOO_BIG = 19,        /* answered with ICMP fragmentation needed / packet too big */
	VERDICT_REWRITE_FAILED = 20, /* the kernel refused to change the packet */
	VERDICT_LATE_ANSWER = 21,    /* another backend answered this handshake before */
	VERDICT_SOURCE_RANGE = 22,   /* the client is in none of the ranges allowed */
	VERDICT_NO_ENDPOINTS = 23,   /* the service has no endpoints at all */
	/* translated */
	VERDICT_RELATED = 24,       /* an ICMP error about a flow, and what it quotes */
	VERDICT_HAIRPIN = 25,       /* back to the pod it comes from */
	VERDICT_REPLY_HAIRPIN = 26, /* from a pod to itself */
	/* dropped */
	VERDICT_FRAGMENT_UNKNOWN = 27, /* the first fragment of the datagram was not seen */
	VERDICT_NO_PORT = 28,          /* a Service's address, but no port of it */
	VERDICT_UNALLOCATED = 29,      /* in a range of service addresses, but not allocated */
	VERDICT_BACKEND_GONE = 30,     /* answered with RST: the backend is gone */
	VERDICT_REJECT_LIMITED = 31,   /* would be rejected, but too many were answered already */
	VERDICT_ECHO = 32,             /* answered: a ping to a load balancer's address */
	/* dropped */
	VERDICT_SNAT_UNKNOWN = 33,   /* of a backend, to a source port of ours that is no flow's */
	VERDICT_BACKEND_ASTRAY = 34, /* of a backend, in a connection ebb has no flow of any more */
	/* passed untouched */
	VERDICT_NOT_OURS = 35, /* in a frame to another station, or of a VLAN the node is not in */
	/* dropped */
	VERDICT_MARTIAN = 36, /* to begin a flow, from an address that cannot be a client's */
	/* sent on in pieces */
	VERDICT_FRAGMENTED = 37, /* larger than the way; each piece has a verdict of its own */
	/* sent on as they are */
	VERDICT_PASSED_ON = 38, /* the middle of a connection, to the node its backend is on */
	VERDICT_COUNT = 39,
	VERDICT_MAX = 64, /* counters per hook */
};

#endif
