package daemon

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"p9auth/capproto"
)

// A path is one way through factotum.
type path struct {
	name string
	walk func() error
}

// KeepAlive calls alive every interval for as long as factotum serves. It sees that by
// the very paths that serve: a conversation with itself, through the socket, the table
// of verbs, and a reply; and a look-up in the capability files. While one of them
// hangs, alive is not called, and the log says which one: then the service manager's
// watchdog starts factotum anew. It returns when quit is closed.
func (s *Server) KeepAlive(interval time.Duration, alive func(), quit <-chan struct{}) {
	conf := s.gen.Load().conf // what is used of it needs a restart to change
	paths := []path{{"a conversation", func() error { return converse(conf.Socket) }}}
	if s.backend.name == fuse {
		paths = append(paths, path{"the capability files", func() error { return lookUp(conf.CapDir) }})
	}
	keepAlive(paths, interval, s.log.Logger, alive, quit)
}

func keepAlive(paths []path, interval time.Duration, log *slog.Logger, alive func(), quit <-chan struct{}) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		if walk(paths, interval, log) {
			alive()
		}
		select {
		case <-tick.C:
		case <-quit:
			return
		}
	}
}

// walk goes all paths, and says whether they are open. One that takes longer than
// patience is waited for all the same: another walk would hang, too, and in the
// capability files it takes a thread.
func walk(paths []path, patience time.Duration, log *slog.Logger) bool {
	for _, p := range paths {
		done := make(chan error, 1)
		go func() { done <- p.walk() }()
		late := time.AfterFunc(patience, func() {
			log.Error("factotum does not answer itself", "path", p.name, "for", patience.String())
		})
		err := <-done
		inTime := late.Stop()
		if err != nil {
			log.Error("factotum does not answer itself", "path", p.name, "error", err.Error())
		}
		if err != nil || !inTime {
			return false
		}
	}
	return true
}

// isSelf says whether factotum talks to itself: see converse. The pid is the kernel's
// word, and is not of another process as long as this one lives.
func isSelf(cred *unix.Ucred) bool { return cred.Uid == 0 && int(cred.Pid) == os.Getpid() }

// converse has a conversation with factotum itself, which may ask for nothing but
// attr.
func converse(socket string) error {
	c, err := capproto.Dial(socket)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Renounce()
}

// lookUp looks for a capability file that is not there, which the file server has to
// say.
func lookUp(dir string) error {
	err := unix.Stat(filepath.Join(dir, "keep-alive"), new(unix.Stat_t))
	if err != unix.ENOENT {
		return fmt.Errorf("a look-up in %s: %v", dir, err)
	}
	return nil
}
