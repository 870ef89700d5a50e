package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// uring writes a capability to capuse by io_uring, in a way that it is not
// this thread's identity that does it. It says what came of it, and its uid.
func uring(how string) {
	runtime.LockOSThread()
	text, _ := io.ReadAll(os.Stdin)
	fd, err := unix.Open(capuser, unix.O_WRONLY, 0)
	if err != nil {
		fmt.Println("open:", err)
		return
	}
	var p [120]byte // struct io_uring_params
	ring, _, e := unix.Syscall(unix.SYS_IO_URING_SETUP, 4, uintptr(unsafe.Pointer(&p)), 0)
	if e != 0 {
		fmt.Println("no io_uring:", e)
		return
	}
	u32 := func(off int) uint32 { return binary.NativeEndian.Uint32(p[off:]) }
	const sqOff, cqOff = 40, 80
	sq, err1 := unix.Mmap(int(ring), 0, int(u32(sqOff+24))+4*4, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	cq, err2 := unix.Mmap(int(ring), 0x8000000, int(u32(cqOff+20))+16*8, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	sqe, err3 := unix.Mmap(int(ring), 0x10000000, 64*4, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err1 != nil || err2 != nil || err3 != nil {
		fmt.Println("mmap:", err1, err2, err3)
		return
	}
	binary.NativeEndian.PutUint64(sqe[8:], ^uint64(0)) // offset: none
	binary.NativeEndian.PutUint64(sqe[16:], uint64(uintptr(unsafe.Pointer(&text[0]))))
	binary.NativeEndian.PutUint32(sqe[24:], uint32(len(text)))
	binary.NativeEndian.PutUint32(sqe[4:], uint32(fd))
	sqe[0] = 23 // IORING_OP_WRITE
	switch how {
	case "async":
		sqe[1] = 1 << 4 // IOSQE_ASYNC
	case "personality":
		id, _, e := unix.Syscall6(unix.SYS_IO_URING_REGISTER, ring, 9, 0, 0, 0, 0)
		if e != 0 {
			fmt.Println("no io_uring personality:", e)
			return
		}
		binary.NativeEndian.PutUint16(sqe[42:], uint16(id))
		// Other credentials from now on, if only by a bit.
		unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0)
	}
	binary.NativeEndian.PutUint32(sq[u32(sqOff+24):], 0) // array[0] = 0
	// The kernel gives up making the worker that writes (ECANCELED) after a few tries that
	// a signal has interrupted, and a wait is interrupted as well. Go's runtime sends
	// signals, to have goroutines make room for others. One that is blocked, as the one
	// that waits here, does neither.
	all := unix.Sigset_t{}
	for i := range all.Val {
		all.Val[i] = ^uint64(0)
	}
	err = unix.PthreadSigmask(unix.SIG_BLOCK, &all, nil)
	if err == nil {
		err = unix.Tgkill(unix.Getpid(), unix.Gettid(), unix.SIGURG)
	}
	if err != nil {
		fmt.Println("block signals:", err)
		return
	}
	atomic.AddUint32((*uint32)(unsafe.Pointer(&sq[u32(sqOff+4)])), 1) // tail
	if _, _, e := unix.Syscall6(unix.SYS_IO_URING_ENTER, ring, 1, 1, 1, 0, 0); e != 0 {
		fmt.Println("io_uring_enter:", e)
		return
	}
	if atomic.LoadUint32((*uint32)(unsafe.Pointer(&cq[u32(cqOff+4)]))) == 0 { // tail
		fmt.Println("io_uring_enter: nothing has come of it")
		return
	}
	res := int32(binary.NativeEndian.Uint32(cq[u32(cqOff+20)+8:]))
	if res < 0 {
		fmt.Println(errName(syscall.Errno(-res)), rawUID())
		return
	}
	fmt.Println("written", res, rawUID())
}
