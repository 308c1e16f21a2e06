// Package bench measures what a packet costs in ebb's programs beside the
// least it could cost (floor.c), in one interleaved run.
package bench

//go:generate go tool bpf2go -tags linux -target bpfel -no-global-types Floor floor.c -- -I../../bpf -I../../bpf/include
