package channels

import (
	"net"
	"os"

	"golang.org/x/crypto/ssh"

	"p9auth/sshfront/internal/passed"
	"p9auth/sshfront/internal/userlink"
)

// A forward is what the client asked to have listened on.
type forward struct {
	unix bool
	host string // or path
	port uint32 // the one that is listened on
}

// directTCP serves a channel of RFC 4254 section 7.2.
func (s *service) directTCP(nc ssh.NewChannel) {
	var m struct {
		Host       string
		Port       uint32
		OriginHost string
		OriginPort uint32
	}
	if ssh.Unmarshal(nc.ExtraData(), &m) != nil {
		nc.Reject(ssh.ConnectionFailed, "malformed request")
		return
	}
	f, err := s.user.Dial(m.Host, m.Port)
	if userlink.Prohibited(err) {
		s.log("Received request from %.100q port %d to connect to host %.100q port %d, but the request was denied.",
			m.OriginHost, m.OriginPort, m.Host, m.Port)
	}
	s.direct(nc, f, err)
}

// directUnix serves a channel of OpenSSH's PROTOCOL, section 2.4.
func (s *service) directUnix(nc ssh.NewChannel) {
	var m struct {
		Path         string
		Reserved     string
		ReservedPort uint32
	}
	if ssh.Unmarshal(nc.ExtraData(), &m) != nil {
		nc.Reject(ssh.ConnectionFailed, "malformed request")
		return
	}
	f, err := s.user.DialUnix(m.Path)
	if userlink.Prohibited(err) {
		s.log("Received request to connect to path %.100q, but the request was denied.", m.Path)
	}
	s.direct(nc, f, err)
}

func (s *service) direct(nc ssh.NewChannel, f *os.File, err error) {
	if err != nil {
		nc.Reject(refusal(err))
		return
	}
	ch, reqs, err := nc.Accept()
	if err != nil {
		f.Close()
		return
	}
	s.splice(nc.ChannelType(), ch, reqs, passed.New(f))
}

// forwardTCP answers tcpip-forward: RFC 4254 section 7.1.
func (s *service) forwardTCP(payload []byte) (bool, []byte) {
	var m struct {
		Host string
		Port uint32
	}
	if ssh.Unmarshal(payload, &m) != nil || !s.roomToForward() {
		return false, nil
	}
	l, err := s.user.Listen(m.Host, m.Port)
	if err != nil {
		s.log("Cannot listen on %.100q port %d: %v", m.Host, m.Port, err)
		return false, nil
	}
	s.listen(forward{host: m.Host, port: l.Port()}, l, "forwarded-tcpip", "forwarded-tcpip", func(host string, port uint32) []byte {
		return ssh.Marshal(struct {
			Host       string
			Port       uint32
			OriginHost string
			OriginPort uint32
		}{m.Host, l.Port(), host, port})
	})
	if m.Port != 0 {
		return true, nil
	}
	return true, ssh.Marshal(struct{ Port uint32 }{l.Port()})
}

func (s *service) cancelTCP(payload []byte) bool {
	var m struct {
		Host string
		Port uint32
	}
	return ssh.Unmarshal(payload, &m) == nil && s.cancel(forward{host: m.Host, port: m.Port})
}

// forwardUnix answers streamlocal-forward@openssh.com.
func (s *service) forwardUnix(payload []byte) bool {
	var m struct{ Path string }
	if ssh.Unmarshal(payload, &m) != nil || !s.roomToForward() {
		return false
	}
	l, err := s.user.ListenUnix(m.Path)
	if err != nil {
		s.log("Cannot listen on path %.100q: %v", m.Path, err)
		return false
	}
	const typ = "forwarded-streamlocal@openssh.com"
	s.listen(forward{unix: true, host: m.Path}, l, typ, typ, func(string, uint32) []byte {
		return ssh.Marshal(struct{ Path, Reserved string }{m.Path, ""})
	})
	return true
}

func (s *service) cancelUnix(payload []byte) bool {
	var m struct{ Path string }
	return ssh.Unmarshal(payload, &m) == nil && s.cancel(forward{unix: true, host: m.Path})
}

func (s *service) roomToForward() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.forwards) < maxForwards
}

// listen registers a forward and serves it.
func (s *service) listen(key forward, l userlink.Listener, open, timeout string, extra func(host string, port uint32) []byte) {
	s.mu.Lock()
	old := s.forwards[key]
	s.forwards[key] = l
	s.mu.Unlock()
	if old != nil {
		old.Close()
	}
	go s.acceptAll(l, open, timeout, extra)
}

func (s *service) cancel(key forward) bool {
	s.mu.Lock()
	l := s.forwards[key]
	delete(s.forwards, key)
	s.mu.Unlock()
	return l != nil && l.Close() == nil
}

// acceptAll opens a channel to the client for each connection to a listener,
// until the listener is closed. open is the channel's type, timeout the type
// that ChannelTimeout knows it by.
func (s *service) acceptAll(l userlink.Listener, open, timeout string, extra func(host string, port uint32) []byte) {
	for {
		f, host, port, err := l.Accept()
		if err != nil {
			return
		}
		if !s.enter() {
			s.log("A connection was dropped: there are too many channels")
			f.Close()
			continue
		}
		go func() {
			defer s.leave()
			ch, reqs, err := s.conn.OpenChannel(open, extra(host, port))
			if err != nil {
				f.Close()
				return
			}
			s.splice(timeout, ch, reqs, passed.New(f))
		}()
	}
}

// forwardAgent has the agent's socket made, once, and serves it.
func (s *service) forwardAgent() bool {
	s.mu.Lock()
	have := s.agent
	s.mu.Unlock()
	if have {
		return true
	}
	l, err := s.user.Agent()
	if err != nil {
		s.log("The agent is not forwarded: %v", err)
		return false
	}
	s.mu.Lock()
	s.agent = true
	s.mu.Unlock()
	go s.acceptAll(l, "auth-agent@openssh.com", "agent-connection", func(string, uint32) []byte { return nil })
	return true
}

// serveX11 serves the display of a session: RFC 4254 section 6.3.2.
func (s *service) serveX11(l userlink.Listener) {
	s.acceptAll(l, "x11", "x11-connection", func(host string, port uint32) []byte {
		if net.ParseIP(host) == nil {
			host = "UNKNOWN"
		}
		return ssh.Marshal(struct {
			Host string
			Port uint32
		}{host, port})
	})
}
