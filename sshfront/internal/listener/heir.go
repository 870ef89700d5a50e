package listener

import (
	"fmt"
	"io"
	"math"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/internal/pack"
	"p9auth/internal/proc"
	"p9auth/internal/sshdconf"
	"p9auth/internal/sys"
	"p9auth/sshfront/internal/control"
	"p9auth/sshfront/internal/sshlog"
)

// A login needs the listener once more when it is proven, for its session process. The
// service manager waits for the listener to end before it starts another one. So a
// listener that is told to end leaves the logins that are under way, and what they have
// to say, to a process of this program, its heir: the same code without a socket. The
// heir ends with the last of these connections.
//
// An heir starts with
//
//	fd 1       a pipe that it closes when it has taken over
//	fd 2       the listener's standard error
//	fd 3       a sealed memfd with an inheritance
//	fd 4       the memfd with control.Config
//	fd 5, ...  for each connection: the control socket, the session process's end of the
//	           link, and the pipe that is the connection process's standard error
//
// It trusts the listener. A penalty that a source is due is lost with the listener.
const (
	heirStateFD  = 3
	heirConfigFD = 4
	heirFirstFD  = 5
)

// An inheritance is what the heir must know.
type inheritance struct {
	LogLevel   sshdconf.LogLevel
	LogVerbose []string
	Children   []heirloom
}

// A heirloom is a connection.
type heirloom struct {
	Remote, Local netip.AddrPort
	PID           int
	Start         uint64        // of the process, see proc.Stat
	Early         bool          // not authenticated
	Grace         time.Duration // that is left; 0: none was set
}

var inheritances = pack.Format[inheritance]{Name: "the listener's inheritance", Version: 1}

const (
	maxInheritance = 1 << 20         // bytes
	takeOver       = 2 * time.Second // the longest that the listener waits for its heir
)

func (l *listener) isLeaving() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.leaving
}

// bequeath starts the heir, if there is something to go on with. The listener takes no
// connection from then on.
func (l *listener) bequeath() {
	l.mu.Lock()
	for _, s := range l.sockets {
		s.Close()
	}
	l.mu.Unlock()
	l.acceptors.Wait() // who has been accepted already is served
	l.mu.Lock()
	l.leaving = true
	var list []*child
	for c := range l.children {
		list = append(list, c)
	}
	l.mu.Unlock()
	state := inheritance{LogLevel: l.opts.logLevel(l.conf), LogVerbose: l.conf.LogVerbose}
	files := []*os.File{nil, l.config}
	for _, c := range list {
		c.wire.Socket().SetReadDeadline(time.Now()) // serve leaves off between two messages
		<-c.served
		h, f, err := c.heirloom()
		if err != nil {
			continue // it has ended, or needs nothing more
		}
		state.Children = append(state.Children, h)
		files = append(files, f...)
	}
	if len(state.Children) == 0 {
		return
	}
	err := l.startHeir(&state, files)
	if err != nil {
		sshlog.Printf(sshdconf.LogError, "%d logins under way cannot go on: %v", len(state.Children), err)
	}
}

func (l *listener) startHeir(state *inheritance, files []*os.File) error {
	memfd, err := sys.Memfd("sshfront-heir", inheritances.Encode(state))
	if err != nil {
		return err
	}
	files[0] = memfd
	ready, done, err := os.Pipe()
	if err != nil {
		return err
	}
	_, err = os.StartProcess("/proc/self/exe", []string{"sshfront: logins under way", "heir"}, &os.ProcAttr{
		Dir:   "/",
		Env:   append(l.env, "JOURNAL_STREAM="+os.Getenv("JOURNAL_STREAM")),
		Files: append([]*os.File{l.null, done, os.Stderr}, files...),
		Sys:   &unix.SysProcAttr{Setsid: true},
	})
	done.Close()
	if err != nil {
		return err
	}
	ready.SetReadDeadline(time.Now().Add(takeOver))
	if _, err := ready.Read(make([]byte, 1)); err != io.EOF {
		return fmt.Errorf("the process that goes on with them is late: %w", err)
	}
	return nil
}

// heirloom is what the heir needs of a connection that it is to go on with: an error
// says that there is nothing to do. Its serve has ended.
func (c *child) heirloom() (h heirloom, files []*os.File, err error) {
	if c.redeemer {
		return h, nil, os.ErrProcessDone
	}
	st, err := proc.ReadStat(c.process.Pid)
	if err == nil {
		err = c.process.Signal(unix.Signal(0)) // so that the status was this process's
	}
	if err != nil {
		return h, nil, err
	}
	c.l.mu.Lock()
	defer c.l.mu.Unlock()
	h = heirloom{Remote: c.remote, Local: c.local, PID: c.process.Pid, Start: st.Start, Early: c.early}
	if c.grace > 0 {
		h.Grace = max(time.Until(c.began.Add(c.grace)), time.Millisecond)
	}
	wire, err := c.wire.File()
	return h, []*os.File{wire, c.link, c.said}, err
}

// Heir is the life of a listener's heir.
func Heir() {
	if err := heir(); err != nil {
		fmt.Fprintf(os.Stderr, "sshfront: the process that goes on with logins under way: %v\n", err)
		os.Exit(1)
	}
}

func heir() error {
	if err := unix.CloseRange(heirStateFD, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close_range: %w", err)
	}
	b, err := sys.ReadAll(os.NewFile(heirStateFD, "inheritance"), maxInheritance)
	if err != nil {
		return err
	}
	state, err := inheritances.Decode(b)
	if err != nil {
		return err
	}
	if strings.TrimSpace(os.Getenv("JOURNAL_STREAM")) == "" {
		os.Unsetenv("JOURNAL_STREAM")
	}
	sshlog.Setup(state.LogLevel, state.LogVerbose)
	conf := &sshdconf.Listen{LogLevel: state.LogLevel, LogVerbose: state.LogVerbose}
	l := &listener{conf: conf, limits: newLimits(conf), env: childEnv(os.Environ()), children: map[*child]bool{}, config: os.NewFile(heirConfigFD, "config")}
	if l.null, err = os.OpenFile(os.DevNull, os.O_RDWR, 0); err != nil {
		return err
	}
	for i, h := range state.Children {
		if err := l.inherit(h, heirFirstFD+3*i); err != nil {
			sshlog.Printf(sshdconf.LogError, "a login from %s port %d cannot go on: %v", h.Remote.Addr(), h.Remote.Port(), err)
		}
	}
	// The listener can end.
	if err := unix.Dup3(int(l.null.Fd()), 1, 0); err != nil {
		return fmt.Errorf("dup3: %w", err)
	}
	l.wg.Wait()
	return nil
}

// inherit goes on with a connection, whose descriptors begin at fd.
func (l *listener) inherit(h heirloom, fd int) (err error) {
	c := &child{l: l, remote: h.Remote, local: h.Local, early: h.Early, grace: h.Grace, served: make(chan struct{})}
	c.link = os.NewFile(uintptr(fd+1), "link")
	unix.SetNonblock(fd+2, true) // which os.StartProcess has taken away
	said := os.NewFile(uintptr(fd+2), "pipe")
	if c.wire, err = capproto.FileConn(os.NewFile(uintptr(fd), "control"), control.MaxPacket); err != nil {
		return err
	}
	if c.process, err = os.FindProcess(h.PID); err != nil {
		return err
	}
	if st, err := proc.ReadStat(h.PID); err != nil || st.Start != h.Start {
		return os.ErrProcessDone
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.early {
		l.limits.startups++
		l.limits.perSource[c.place.source]++
	}
	c.relay("connection", h.PID, said)
	l.wg.Add(2)
	go c.serve()
	go c.watch()
	return nil
}

// watch waits for the process to end, as wait does for a child: nobody learns how.
func (c *child) watch() {
	defer c.l.wg.Done()
	if c.grace > 0 {
		t := time.AfterFunc(c.grace, c.graceOver)
		defer t.Stop()
	}
	proc.AwaitEnd(c.process.Pid)
	c.wire.Socket().SetReadDeadline(time.Now().Add(time.Second))
	<-c.served
	c.l.mu.Lock()
	timeout := c.timeout
	c.l.mu.Unlock()
	if timeout {
		c.logTimeout()
	}
	c.left()
}
