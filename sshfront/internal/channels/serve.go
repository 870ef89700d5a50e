// Package channels is the SSH connection protocol (RFC 4254) of the connection
// process: channels and global requests, on top of x/crypto/ssh.
//
// It decides nothing and touches nothing of the user's. What a client asks for
// is asked of the user process (by User), which checks it and hands descriptors
// over; here bytes are moved between those and the channels. It believes neither
// the client nor the user process, bounds what both may have at once, and goes by
// the settings that factotum gave to the connection process.
//
// On the descriptors it uses read, write, shutdown, close, fcntl(F_GETFL) and
// epoll_ctl, and nothing else; on the link sendmsg and recvmsg.
package channels

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"p9auth/internal/sshdconf"
	"p9auth/sshfront/internal/userlink"
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

// A User does for the client what needs the user's rights. userlink.Client is
// one. An error answer is a *userlink.Error.
type User interface {
	PTY(term string, size userlink.Size, modes []byte) (userlink.PTY, error)
	Exec(userlink.Exec) (userlink.Program, error)
	Dial(host string, port uint32) (*os.File, error)
	DialUnix(path string) (*os.File, error)
	Listen(host string, port uint32) (userlink.Listener, error)
	ListenUnix(path string) (userlink.Listener, error)
	Agent() (userlink.Listener, error)
	X11(single bool, proto, cookie string, screen uint32) (userlink.Listener, error)
	NoMoreSessions() error
	// Done is closed when the user process has ended; Err says why.
	Done() <-chan struct{}
	Err() error
	// Close ends the user process.
	Close() error
}

// Options are what Serve is told.
type Options struct {
	// Settings are the ones that hold for the user, as factotum gave them.
	Settings *sshdconf.Connection
	// Log writes a line to the log, and Error one of something that does not work; nil
	// discards.
	Log, Error func(format string, a ...any)
	// Interactive is called once, when the first session starts, and says
	// whether it has a terminal: for IPQoS. nil: nobody cares.
	Interactive func(tty bool)
	// HostKeys are the server's, which the client may learn, and Prove the signature
	// of one of them that proves it: see hostkeys.go.
	HostKeys [][]byte
	Prove    func(hostKey []byte) ([]byte, error)
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
func Serve(conn *ssh.ServerConn, chans <-chan ssh.NewChannel, reqs <-chan *ssh.Request, user User, opt Options) error {
	for _, log := range []*func(string, ...any){&opt.Log, &opt.Error} {
		if *log == nil {
			*log = func(string, ...any) {}
		}
	}
	s := &service{conn: conn, user: user, set: opt.Settings, opt: opt, forwards: map[forward]userlink.Listener{},
		watched: map[*activity]bool{},
		ended:   make(chan struct{}), changed: make(chan struct{}, 1)}
	defer user.Close()
	defer conn.Close()
	defer close(s.ended)
	s.announceHostKeys()
	go s.watchUser()
	go s.watchClient()
	s.take(chans, reqs)
	select {
	case <-user.Done():
		// A client that was told why there is no session may leave at once.
		s.because(user.Err())
	default:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.why
}

// take handles the client's global requests and the channels that it opens, until
// the connection ends. The library queues both in the client's order, but apart: a
// request that was sent before a channel was opened is in its queue by then. So
// "ssh -R ... host cmd" listens before cmd runs, as with sshd.
func (s *service) take(chans <-chan ssh.NewChannel, reqs <-chan *ssh.Request) {
	for {
		select {
		case r, ok := <-reqs:
			if !ok {
				reqs = nil
				continue
			}
			s.request(r, chans)
		case nc, ok := <-chans:
			if !ok {
				return
			}
			for range len(reqs) {
				r, ok := <-reqs
				if !ok {
					reqs = nil
					break
				}
				if r.Type == noMoreSessions && nc != nil {
					s.open(nc) // perhaps it was sent before
					nc = nil
				}
				s.request(r, chans)
			}
			if nc != nil {
				s.open(nc)
			}
		}
	}
}

const noMoreSessions = "no-more-sessions@openssh.com"

// A service serves one connection: "ssh-connection" in RFC 4254.
type service struct {
	conn *ssh.ServerConn
	user User
	set  *sshdconf.Connection
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
	warned   bool // the log has an error of this connection
	forwards map[forward]userlink.Listener
	all      *activity          // of ChannelTimeout global, or nil
	watched  map[*activity]bool // where all is not nil
}

// end ends the connection.
func (s *service) end(why error) {
	s.because(why)
	s.conn.Close()
}

// because says what Serve is to return.
func (s *service) because(why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.why == nil {
		s.why = why
	}
}

// watchUser ends the connection when the user process has.
func (s *service) watchUser() {
	select {
	case <-s.ended:
		return
	case <-s.user.Done():
	}
	err := s.user.Err()
	s.because(err)
	// The session could not be opened: sessions tell the client why.
	if e := new(userlink.Error); errors.As(err, &e) {
		select {
		case <-s.ended:
		case <-time.After(farewell):
		}
	}
	s.conn.Close()
}

// userGone reports whether the user process has ended, or never began.
func (s *service) userGone() bool {
	select {
	case <-s.user.Done():
		return true
	default:
		return false
	}
}

// enter counts a channel; leave must follow.
func (s *service) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.channels >= maxChannels {
		return false
	}
	s.channels++
	s.notice()
	return true
}

func (s *service) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.channels--
	s.notice()
}

func (s *service) notice() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// open handles a channel that the client opens. It does not wait.
func (s *service) open(nc ssh.NewChannel) {
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
	if nc.ChannelType() == "session" {
		// Here, since no-more-sessions@openssh.com may follow at once.
		if why := s.enterSession(); why != "" {
			s.leave()
			nc.Reject(ssh.Prohibited, why)
			return
		}
	}
	go func() {
		defer s.leave()
		serve(nc)
	}()
}

// request handles a global request. They are handled one after the other, as their
// answers have no number: RFC 4254 section 4.
func (s *service) request(r *ssh.Request, chans <-chan ssh.NewChannel) {
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
	case noMoreSessions:
		// Those that the client opened before are sessions yet.
		for range len(chans) {
			if nc, ok := <-chans; ok {
				s.open(nc)
			}
		}
		s.mu.Lock()
		s.noMore = true
		s.mu.Unlock()
		s.noMoreSessions()
		ok = true
	case proveHostKeys:
		ok, payload = s.proveHostKeys(r.Payload)
	case "keepalive@openssh.com":
		// Any answer will do; sshd(8) refuses.
	}
	r.Reply(ok, payload)
}

// refusal turns an error of the user process into a reason for the client.
func refusal(err error) (ssh.RejectionReason, string) {
	reason := ssh.ConnectionFailed
	if userlink.Prohibited(err) {
		reason = ssh.Prohibited
	}
	return reason, err.Error()
}

// failed logs what the user process could not do, as an error once: what it says is the
// user's, who could have it said without end.
func (s *service) failed(what string, err error) {
	s.mu.Lock()
	log := s.opt.Log
	if !s.warned && !userlink.Prohibited(err) {
		s.warned, log = true, s.opt.Error
	}
	s.mu.Unlock()
	log("%s: %.200s", what, err.Error())
}

func (s *service) log(format string, a ...any) { s.opt.Log("%s", fmt.Sprintf(format, a...)) }
