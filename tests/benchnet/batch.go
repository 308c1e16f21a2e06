package main

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// batchSize is how many packets a system call sends or receives.
const batchSize = 64

// mmsghdr is struct mmsghdr of the kernel.
type mmsghdr struct {
	header unix.Msghdr
	length uint32
}

// batch is a number of packets that cross into the kernel together.
type batch struct {
	packets  [][]byte
	vectors  []unix.Iovec
	messages []mmsghdr
}

func newBatch(n, size int) *batch {
	b := &batch{packets: make([][]byte, n), vectors: make([]unix.Iovec, n), messages: make([]mmsghdr, n)}
	for i := range n {
		b.packets[i] = make([]byte, size)
		b.vectors[i].Base = &b.packets[i][0]
		b.vectors[i].SetLen(size)
		b.messages[i].header.Iov = &b.vectors[i]
		b.messages[i].header.SetIovlen(1)
	}
	return b
}

// send sends the packets by fd and returns how many the kernel took.
func (b *batch) send(fd int) (int, error) {
	return b.call(unix.SYS_SENDMMSG, fd, 0)
}

// receive takes what is there, and returns EAGAIN if that is nothing.
func (b *batch) receive(fd int) (int, error) {
	return b.call(unix.SYS_RECVMMSG, fd, unix.MSG_DONTWAIT)
}

func (b *batch) call(number uintptr, fd, flags int) (int, error) {
	n, _, errno := unix.Syscall6(number, uintptr(fd), uintptr(unsafe.Pointer(&b.messages[0])),
		uintptr(len(b.messages)), uintptr(flags), 0, 0)
	runtime.KeepAlive(b)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
