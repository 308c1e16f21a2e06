package lab

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// onOwnThread runs fn on a thread of its own, which is thrown away afterwards
// together with whatever namespaces fn left it in. It returns at once.
//
// The main thread cannot be thrown away: the runtime parks it for ever, and it
// would keep a namespace alive. It is held aside while fn gets another one.
func onOwnThread(fn func()) {
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			fn()
			return
		}
		started := make(chan struct{})
		onOwnThread(func() {
			close(started)
			fn()
		})
		<-started
		runtime.UnlockOSThread()
	}()
}
