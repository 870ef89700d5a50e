package daemon

import (
	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/internal/sys"
)

// A letGo closes the connections of those with whom factotum does not talk. They may have
// sent what nobody reads, with descriptors that take hours to close, and whoever accepts
// connections must not wait for that.
type letGo chan int

// startLetGo starts the goroutine that does so.
func startLetGo() letGo {
	l := make(letGo, sys.MaxLetGo)
	go func() {
		for fd := range l {
			l.close(fd)
		}
	}()
	return l
}

// close closes a descriptor, and those that wait, by one child.
func (l letGo) close(fd int) {
	fds := []int{fd}
	for len(l) > 0 && len(fds) < sys.MaxLetGo {
		fds = append(fds, <-l)
	}
	if sys.LetGo(fds) == nil {
		return
	}
	go func() { // there is no process to be had: at worst this keeps a thread
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
}

// wire closes a wire.
func (l letGo) wire(w wire) {
	c, ok := w.(*capproto.Conn)
	if !ok {
		w.Close()
		return
	}
	fd, err := -1, error(nil)
	if raw, e := c.Socket().SyscallConn(); e == nil {
		raw.Control(func(n uintptr) { fd, err = unix.FcntlInt(n, unix.F_DUPFD_CLOEXEC, 0) })
	}
	if fd < 0 || err != nil {
		go c.Close()
		return
	}
	c.Close() // at once, as this is not the last descriptor
	l <- fd
}
