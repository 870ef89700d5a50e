// Package user is the user process of sshfront.
//
// It runs as the user who logged in, one for each SSH connection, from the moment
// that the capability is redeemed. The PAM session belongs to it. The connection
// process asks it on the link (package userlink) for terminals, programs and
// sockets. It hands their descriptors over, so that the data does not pass
// through it. Only sftp is served in a child, which is the same program again.
//
// It trusts what factotum said (Info) and the kernel. It does not trust the
// connection process, which an attacker may have taken over: it enforces what the
// settings and the options of the user's key permit. It has the user's rights and
// needs no other; no_new_privs is not set, as people use sudo.
//
// When the link closes, terminals are hung up, sockets are removed and the
// process ends; programs without a terminal go on if they like, as with
// sshd(8).
package user

import (
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/internal/privs"
	"p9auth/internal/sys"
	"p9auth/sshfront/internal/userlink"
)

// Main is the user process: descriptor 3 is the link, descriptor 4 the Info,
// which what factotum has bound the login to goes before, descriptor 5 the conversation
// with factotum, by which terminals are recorded, and more are in a root directory: see
// root.go. It never returns.
func Main() {
	log.SetFlags(0)
	log.SetPrefix("sshfront user: ")
	if err := run(); err != nil {
		log.Fatal(err)
	}
	os.Exit(0)
}

func run() error {
	// A user who may have sftp only must not reach our memory by it, nor what
	// the link carries.
	if err := privs.Undumpable(); err != nil {
		return err
	}
	// Programs get their descriptors one by one.
	if err := sys.CloseOnExec(); err != nil {
		return err
	}
	f := os.NewFile(4, "info")
	conn, err := capproto.FileConn(os.NewFile(3, "link"), userlink.MaxPacket)
	if err != nil {
		return fmt.Errorf("descriptor 3: %w", err)
	}
	info, err := readInfo(f)
	if err == nil {
		info, err = info.sealed()
	}
	if err != nil {
		userlink.Refuse(conn, err.Error())
		return err
	}
	f.Close()
	if err := info.Apply(); err != nil {
		log.Print(err)
	}
	// Nothing of ours keeps a file system busy.
	if err := os.Chdir("/"); err != nil {
		return err
	}
	// Caught rather than ignored: what is ignored stays so in programs.
	ends := make(chan os.Signal, 1)
	signal.Notify(ends, syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		<-ends
		conn.Close()
	}()
	u := newUserProcess(info, conn)
	if u.records, err = capproto.ResumeTerminals(5); err != nil {
		log.Printf("terminals are not recorded: %v", err)
	} else {
		go u.records.Redeemed()
	}
	if err := u.enterRoot(); err != nil {
		userlink.Refuse(conn, err.Error())
		return err
	}
	// From here on nothing that the user does reaches the log. Standard output is
	// the listener's /dev/null; a root directory need not have one.
	if err := unix.Dup3(1, 2, 0); err != nil {
		return err
	}
	defer u.close()
	return u.serve()
}

// maxRequests bounds the requests that wait for their answer.
const maxRequests = 4096

// A userProcess is the user process at work.
type userProcess struct {
	info    *Info
	link    *userlink.Server
	records *capproto.Terminals // or nil

	shown atomic.Pointer[ptyPair] // the terminal that systemd-logind shows, or nil

	// forks is held for writing while the umask is another one, or while a
	// descriptor is about that must not be inherited.
	forks sync.RWMutex

	mu        sync.Mutex
	says      []string // what PAM had to say, until a program is asked for
	running   int      // requests
	closed    bool
	noMore    bool  // NoMoreSessions
	masters   []int // of terminals in a root directory that nobody has asked for
	ptys      map[uint32]*ptyPair
	programs  map[uint32]*program
	listeners map[uint32]*listener
	agentPath string
	authInfo  string   // file of SSH_USER_AUTH
	remove    []string // files and directories, at the end, last first
}

func newUserProcess(info *Info, conn *capproto.Conn) *userProcess {
	return &userProcess{info: info, link: userlink.NewServer(conn), says: info.Messages,
		ptys: map[uint32]*ptyPair{}, programs: map[uint32]*program{}, listeners: map[uint32]*listener{}}
}

// serve answers requests until the link closes.
func (u *userProcess) serve() error {
	for {
		id, r, err := u.link.Next()
		if userlink.IsClosed(err) {
			return nil
		}
		if err != nil {
			return err
		}
		u.mu.Lock()
		busy := u.running >= maxRequests
		u.running++
		u.mu.Unlock()
		go func() {
			a, err := userlink.Answer{}, error(&userlink.Error{Code: userlink.CodeLimit, Text: "too many requests"})
			if !busy {
				a, err = u.handle(id, r)
			}
			u.mu.Lock()
			u.running--
			u.mu.Unlock()
			u.link.Answer(id, a, err)
		}()
		if busy {
			return errors.New("the connection process asks for too much at once")
		}
	}
}

// handle is everything that can be asked of the user process.
func (u *userProcess) handle(id uint32, r userlink.Request) (a userlink.Answer, err error) {
	switch r.(type) {
	case userlink.OpenPTY, userlink.Exec, userlink.ForwardAgent, userlink.ForwardX11:
		u.mu.Lock()
		refused := u.noMore
		u.mu.Unlock()
		if refused {
			return a, userlink.Prohibitedf("the client said that there would be no more sessions")
		}
	}
	switch r := r.(type) {
	case userlink.OpenPTY:
		return u.openPTY(id, r)
	case userlink.Exec:
		return u.exec(id, r)
	case userlink.Wait:
		return u.wait(r)
	case userlink.Winch:
		return a, u.winch(r)
	case userlink.Break:
		return a, u.sendBreak(r)
	case userlink.Signal:
		return a, u.signal(r)
	case userlink.Drop:
		return a, u.drop(r)
	case userlink.Dial:
		return u.dial(r)
	case userlink.DialUnix:
		return u.dialUnix(r)
	case userlink.Listen:
		return u.listen(id, r)
	case userlink.ListenUnix:
		return a, u.listenUnix(id, r)
	case userlink.ForwardAgent:
		return a, u.agent(id)
	case userlink.ForwardX11:
		return a, u.x11(id, r)
	case userlink.Accept:
		return u.accept(r)
	case userlink.Cancel:
		return a, u.cancel(r)
	case userlink.NoMoreSessions:
		u.mu.Lock()
		u.noMore = true
		u.mu.Unlock()
		return a, nil
	}
	return a, userlink.Failedf("the user process does not know the request %T", r)
}

// close takes away what would stay behind.
func (u *userProcess) close() {
	u.link.Close()
	u.mu.Lock()
	defer u.mu.Unlock()
	u.closed = true
	for _, p := range u.ptys {
		p.close()
	}
	for _, x := range u.programs {
		x.killRC()
	}
	for _, l := range u.listeners {
		l.close()
	}
	for i := len(u.remove) - 1; i >= 0; i-- {
		os.Remove(u.remove[i])
	}
}

// object returns what an earlier request made.
func object[T any](u *userProcess, id uint32, m map[uint32]T) (T, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	x, ok := m[id]
	if !ok {
		return x, userlink.ErrGone
	}
	return x, nil
}

// keep registers what a request made, unless it is too late.
func keep[T any](u *userProcess, id uint32, m map[uint32]T, x T, max int) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return userlink.ErrGone
	}
	if len(m) >= max {
		return &userlink.Error{Code: userlink.CodeLimit, Text: "too many at once"}
	}
	m[id] = x
	return nil
}
