package daemon

import (
	"errors"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"p9auth/capproto"
)

// TestTheKeepAliveStopsWhileAPathHangs or fails, says which one it is, and goes on
// after it.
func TestTheKeepAliveStopsWhileAPathHangs(t *testing.T) {
	b := newBench(host().gen)
	var alive, walks atomic.Int32
	var fails atomic.Bool
	hang := make(chan struct{})
	quit, ended := make(chan struct{}), make(chan struct{})
	const interval = 20 * time.Millisecond
	go func() {
		defer close(ended)
		keepAlive([]path{
			{"a good path", func() error { return nil }},
			{"the bad path", func() error {
				walks.Add(1)
				<-hang
				if fails.Load() {
					return errors.New("is broken")
				}
				return nil
			}},
		}, interval, b.core.log.Logger, func() { alive.Add(1) }, quit)
	}()
	wait := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s does not come: %s", what, b.log.String())
			}
		}
	}
	logs := func(text string) func() bool { return func() bool { return strings.Contains(b.log.String(), text) } }
	wait("the line about the hang", logs(`path="the bad path" for=20ms`))
	time.Sleep(5 * interval)
	if n := walks.Load(); n != 1 {
		t.Errorf("%d walks hang", n)
	}
	if alive.Load() != 0 {
		t.Error("it is alive while a path hangs")
	}
	fails.Store(true)
	close(hang)
	wait("the line about the fault", logs(`path="the bad path" error="is broken"`))
	if alive.Load() != 0 {
		t.Error("it is alive while a path is broken")
	}
	fails.Store(false)
	wait("a sign of life", func() bool { return alive.Load() > 2 })
	close(quit)
	<-ended
}

// TestFactotumAnswersItselfWhateverOthersDo: all places are taken.
func TestFactotumAnswersItselfWhateverOthersDo(t *testing.T) {
	s, b, conf := serving(t)
	if os.Getuid() != 0 {
		t.Skip("factotum is root")
	}
	// Here the test's uid is a front end's, unlike factotum's.
	gen := *s.gen.Load()
	gen.fronts = nil
	gen.conf.MaxConversations, gen.conf.MaxConversationsPerUID = 0, 0
	s.gen.Store(&gen)
	if err := converse(conf.Socket); err != nil {
		t.Errorf("%v: %s", err, b.log.String())
	}
	c, err := capproto.Dial(conf.Socket)
	must(err)
	defer c.Close()
	if _, err := c.Start(capproto.Start{User: "alice"}); capproto.CodeOf(err) != capproto.CodeProtocol {
		t.Errorf("from itself factotum takes more than attr: %v", err)
	}
	if isSelf(&unix.Ucred{Uid: 0, Pid: int32(os.Getppid())}) || isSelf(&unix.Ucred{Uid: 1, Pid: int32(os.Getpid())}) {
		t.Error("others are taken for factotum itself")
	}
}
