// Package channels is the SSH connection protocol (RFC 4254) of the connection
// process: channels and global requests, on top of x/crypto/ssh.
//
// It decides nothing and touches nothing of the user's. What a client asks for
// is asked of the user process (sshfront/internal/user), which checks it and hands
// descriptors over; here bytes are moved between those and the channels. It
// believes neither the client nor the user process, and bounds what both may
// have at once.
//
// On the descriptors it uses read, write, shutdown, close, fcntl(F_GETFL) and
// epoll_ctl, and nothing else; on the link sendmsg and recvmsg.
package channels

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"p9auth/internal/sshdconf"
	sshuser "p9auth/sshfront/internal/user"
)

const (
	// maxChannels bounds the channels of a connection, in whatever direction
	// they were opened; each is a descriptor or a few, of which a process may
	// have no more than 1024 in the worst case.
	maxChannels = 800
	// maxForwards bounds the listeners that the client may ask for.
	maxForwards = 128
	// farewell is how long a client may stay to read why its session failed.
	farewell = 10 * time.Second
)

// Options are what Serve may be told.
type Options struct {
	// Log writes a line to the log; nil discards.
	Log func(format string, a ...any)
	// Interactive is called once, when the first session starts, and says
	// whether it has a terminal: for IPQoS. nil: nobody cares.
	Interactive func(tty bool)
	// Meter counts what comes from the client. Without it, ClientAliveInterval
	// has a request sent whether the client is silent or not.
	Meter *Meter
}

// Errors of Serve.
var (
	ErrNotResponding = errors.New("timeout, client not responding")
	ErrUnused        = errors.New("terminating inactive connection")
)

// Serve serves a connection until it ends: because the client has left (then it
// returns nil), because the client does not answer or does nothing, or because
// the user process has ended or could not be started. It closes conn and user.
func Serve(conn *ssh.ServerConn, chans <-chan ssh.NewChannel, reqs <-chan *ssh.Request, user *sshuser.Client, opt Options) error {
	if opt.Log == nil {
		opt.Log = func(string, ...any) {}
	}
	s := &server{conn: conn, user: user, opt: opt, forwards: map[forward]*sshuser.Listener{},
		watched: map[*activity]bool{},
		ended:   make(chan struct{}), changed: make(chan struct{}, 1)}
	defer user.Close()
	defer conn.Close()
	defer close(s.ended)
	go s.requests(reqs)
	go s.watchUser()
	go s.watchClient()
	for nc := range chans {
		s.open(nc)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.why
}

// A server serves one connection.
type server struct {
	conn *ssh.ServerConn
	user *sshuser.Client
	opt  Options

	ended   chan struct{} // Serve returns
	changed chan struct{} // the number of channels did; holds one

	mu       sync.Mutex
	why      error // the connection was ended by us
	channels int
	sessions int
	larval   int  // of them, those that have asked for no program yet
	noMore   bool // no-more-sessions@openssh.com
	agent    bool
	started  bool // a session
	forwards map[forward]*sshuser.Listener
	all      *activity          // of ChannelTimeout global, or nil
	watched  map[*activity]bool // where all is not nil
}

// end ends the connection.
func (s *server) end(why error) {
	s.because(why)
	s.conn.Close()
}

// because says what Serve is to return.
func (s *server) because(why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.why == nil {
		s.why = why
	}
}

// watchUser ends the connection when the user process has.
func (s *server) watchUser() {
	select {
	case <-s.ended:
		return
	case <-s.user.Done():
	}
	err := s.user.Err()
	s.because(err)
	// The session could not be opened: sessions tell the client why.
	if e := new(sshuser.Error); errors.As(err, &e) {
		select {
		case <-s.ended:
		case <-time.After(farewell):
		}
	}
	s.conn.Close()
}

// settings are those for the user, or nil if there is no user process; then
// the connection is about to end.
func (s *server) settings() *sshdconf.Settings {
	set, err := s.user.Settings()
	if err != nil {
		return nil
	}
	return set
}

// enter counts a channel; leave must follow.
func (s *server) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.channels >= maxChannels {
		return false
	}
	s.channels++
	s.notice()
	return true
}

func (s *server) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.channels--
	s.notice()
}

func (s *server) notice() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// open handles a channel that the client opens. It does not wait.
func (s *server) open(nc ssh.NewChannel) {
	var serve func(ssh.NewChannel)
	switch nc.ChannelType() {
	case "session":
		serve = s.session
	case "direct-tcpip":
		serve = s.directTCP
	case "direct-streamlocal@openssh.com":
		serve = s.directUnix
	case "tun@openssh.com":
		nc.Reject(ssh.Prohibited, "tunnel devices are not supported")
		return
	default:
		nc.Reject(ssh.UnknownChannelType, "unsupported channel type")
		return
	}
	if !s.enter() {
		nc.Reject(ssh.ResourceShortage, "too many channels")
		return
	}
	go func() {
		defer s.leave()
		serve(nc)
	}()
}

// requests handles global requests, one after the other as their answers have
// no number: RFC 4254 section 4.
func (s *server) requests(reqs <-chan *ssh.Request) {
	for r := range reqs {
		ok, payload := false, []byte(nil)
		switch r.Type {
		case "tcpip-forward":
			ok, payload = s.forwardTCP(r.Payload)
		case "cancel-tcpip-forward":
			ok = s.cancelTCP(r.Payload)
		case "streamlocal-forward@openssh.com":
			ok = s.forwardUnix(r.Payload)
		case "cancel-streamlocal-forward@openssh.com":
			ok = s.cancelUnix(r.Payload)
		case "no-more-sessions@openssh.com":
			s.mu.Lock()
			s.noMore = true
			s.mu.Unlock()
			s.noMoreSessions()
			ok = true
		case "keepalive@openssh.com":
			// Any answer will do; sshd(8) refuses.
		}
		r.Reply(ok, payload)
	}
}

// refusal turns an error of the user process into a reason for the client.
func refusal(err error) (ssh.RejectionReason, string) {
	reason := ssh.ConnectionFailed
	if sshuser.Prohibited(err) {
		reason = ssh.Prohibited
	}
	return reason, err.Error()
}

func (s *server) log(format string, a ...any) { s.opt.Log("%s", fmt.Sprintf(format, a...)) }
