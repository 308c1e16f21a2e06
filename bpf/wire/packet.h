/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Headers as they are on the wire. */
#ifndef EBB_WIRE_PACKET_H
#define EBB_WIRE_PACKET_H

#include <linux/types.h>
#include <bpf/bpf_endian.h>

#define ETH_P_IP     0x0800
#define ETH_P_IPV6   0x86DD
#define ETH_P_8021Q  0x8100
#define ETH_P_8021AD 0x88A8

#define IPPROTO_HOPOPTS  0
#define IPPROTO_ICMP     1
#define IPPROTO_TCP      6
#define IPPROTO_UDP      17
#define IPPROTO_ROUTING  43
#define IPPROTO_FRAGMENT 44
#define IPPROTO_ICMPV6   58
#define IPPROTO_DSTOPTS  60
#define IPPROTO_SCTP     132

#define AF_INET  2
#define AF_INET6 10

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

/* Types of chunks, and the flag of two of them (RFC 9260, 3.3.7 and 3.3.13). */
#define SCTP_INIT              1
#define SCTP_INIT_ACK          2
#define SCTP_ABORT             6
#define SCTP_SHUTDOWN_ACK      8
#define SCTP_ERROR             9
#define SCTP_COOKIE_ACK        11
#define SCTP_SHUTDOWN_COMPLETE 14
#define SCTP_REFLECTED         0x01 /* the tag is the one the sender was sent */

#define SCTP_STALE_COOKIE 3 /* cause of an ERROR */

#define IP_FRAGMENT_MASK  0x3fff /* more fragments, or an offset */
#define IP_OFFSET_MASK    0x1fff
#define IP_MORE_FRAGMENTS 0x2000
#define IP_DONT_FRAGMENT  0x4000
#define IPV4_HEADER_MOST  60

/* Types of options. */
#define IPV4_OPTION_END    0
#define IPV4_OPTION_NOP    1
#define IPV4_OPTION_COPIED 0x80 /* into every fragment */

#define IPV6_LABEL_MASK     0x0fffffff /* traffic class and flow label */
#define IPV6_MORE_FRAGMENTS 1
#define IPV6_OFFSET_MASK    0xfff8

struct eth_hdr {
	__u8 dst[6];
	__u8 src[6];
	__be16 proto;
};

struct vlan_hdr {
	__be16 tci;
	__be16 proto;
};

#define VLAN_ID_MASK 0x0fff
#define VLAN_NO_ID   0x0fff /* reserved (IEEE 802.1Q) */

struct ipv4_hdr {
	__u8 version_ihl;
	__u8 tos;
	__be16 len;
	__be16 id;
	__be16 frag;
	__u8 ttl;
	__u8 proto;
	__u16 check;
	__be32 src;
	__be32 dst;
};

struct ipv6_hdr {
	__be32 flow; /* version, traffic class, flow label */
	__be16 len;
	__u8 next;
	__u8 hop_limit;
	__be32 src[4];
	__be32 dst[4];
};

struct ipv6_ext {
	__u8 next;
	__u8 len;      /* in 8 bytes, not counting the first 8 */
	__u8 type;     /* routing header */
	__u8 segments; /* routing header: left */
};

struct ipv6_fragment {
	__u8 next;
	__u8 reserved;
	__be16 frag;
	__be32 id;
};

struct tcp_hdr {
	__be16 sport;
	__be16 dport;
	__be32 seq;
	__be32 ack;
	__u8 offset; /* high four bits: header length in 4 bytes */
	__u8 flags;
	__be16 window;
	__u16 check;
	__be16 urgent;
};

struct udp_hdr {
	__be16 sport;
	__be16 dport;
	__be16 len;
	__u16 check;
};

/* The common header and the head of the first chunk, without which there is no packet. */
struct sctp_hdr {
	__be16 sport;
	__be16 dport;
	__be32 tag;
	__u32 check; /* CRC32c, little-endian on the wire */
	__u8 chunk;
	__u8 chunk_flags;
	__be16 chunk_len;
};

struct icmp_hdr {
	__u8 type;
	__u8 code;
	__u16 check;
	__be32 rest;
};

#endif
