/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * CRC32c of a packet some of whose bytes change. The checksum is linear: it
 * changes by what the changed bits, with nothing but zeros around them, have
 * for a checksum. So the rest of the packet need not be read. Pure.
 */
#ifndef EBB_WIRE_CRC32C_H
#define EBB_WIRE_CRC32C_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "wire/crc32c_table.h"

/* The product of two polynomials, modulo that of CRC32c; the lowest bit is the highest power. */
static __always_inline __u32 crc32c_multiply(__u32 a, __u32 b)
{
	__u32 product = 0;

	for (int i = 0; i < 32; i++) {
		product ^= b & -(a >> 31);
		a <<= 1;
		__u32 odd = b & 1;

		/* A mask in its place makes newer verifiers follow both values of each bit. */
		barrier_var(odd);
		b = (b >> 1) ^ (CRC32C_POLYNOMIAL * odd);
	}
	return product;
}

/* The register after four bytes that were added to it. */
static __always_inline __u32 crc32c_word(__u32 crc)
{
	for (int i = 0; i < 32; i++) {
		__u32 odd = crc & 1;

		/* As in crc32c_multiply(). */
		barrier_var(odd);
		crc = (crc >> 1) ^ (CRC32C_POLYNOMIAL * odd);
	}
	return crc;
}

/*
 * What a packet's checksum changes by if its first four bytes change by bits:
 * a multiplication for each digit, in base 16, of its length. bytes is below
 * 65536, but not of 16 bits: of its arguments the verifier does not believe that.
 */
__noinline __u32 crc32c_change(__u32 bits, __u32 bytes)
{
	for (int k = 0; k < 4 && bytes >> (4 * k); k++)
		bits = crc32c_multiply(bits, crc32c_powers[k][bytes >> (4 * k) & 15]);
	return bits;
}

#endif
