package pam

import (
	"bufio"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// taps has a terminal open before somebody logs in there: as descriptor 3, which
// another process has opened, and where it may also by the terminal's name, args[0].
// It reads what it can meanwhile, from the beginning where args[1] is "name", and
// otherwise once it is told to. When it is told again, it tries what else a descriptor
// is good for. It ends with a panic if anything of that works.
func taps(args []string) {
	signal.Ignore(syscall.SIGHUP)
	fds := []int{3}
	if fd, err := unix.Open(args[0], unix.O_RDWR|unix.O_NOCTTY, 0); err == nil {
		fds = append(fds, fd)
	}
	must(unix.IoctlSetInt(3, unix.TIOCEXCL, 0))
	told := bufio.NewReader(os.Stdin)
	fmt.Printf("taps %d\n", len(fds))
	if args[1] != "name" {
		told.ReadByte()
	}
	var mu sync.Mutex
	var read []byte
	for _, fd := range fds {
		go func() {
			b := make([]byte, 100)
			for {
				n, err := unix.Read(fd, b)
				if n <= 0 || err != nil {
					return
				}
				mu.Lock()
				read = append(read, b[:n]...)
				mu.Unlock()
			}
		}()
	}
	fmt.Println("reads")
	told.ReadByte()
	refuse := func(what string, err error) {
		if err == nil {
			panic(what + " works")
		}
	}
	x := byte('x')
	for _, fd := range fds {
		_, err := unix.Write(fd, []byte("spoofed"))
		refuse("to write", err)
		_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCSTI, uintptr(unsafe.Pointer(&x)))
		refuse("to inject", errno(e))
		refuse("to hang up", unix.IoctlSetInt(fd, unix.TIOCVHANGUP, 0))
		refuse("to take it as the controlling terminal", unix.IoctlSetInt(fd, unix.TIOCSCTTY, 1))
		_, err = unix.IoctlGetTermios(fd, unix.TCGETS)
		refuse("to read its settings", err)
		refuse("to throw away what is typed", unix.IoctlSetInt(fd, unix.TCFLSH, unix.TCIFLUSH))
		_, err = unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_RDWR|unix.O_NOCTTY, 0)
		refuse("to open it by its descriptor", err)
	}
	_, err := unix.Open(args[0], unix.O_RDONLY|unix.O_NOCTTY, 0)
	refuse("to open it by its name", err)
	mu.Lock()
	fmt.Printf("read %q\n", read)
	mu.Unlock()
}

// errno is nil for no error.
func errno(e syscall.Errno) error {
	if e == 0 {
		return nil
	}
	return e
}
