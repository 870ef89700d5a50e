// Package connection is the connection process of sshfront, one for each
// connection. It runs as _sshfront in a sandbox (sandbox.go), in which it can
// neither open nor execute anything. It speaks the SSH protocol with a client
// that nobody knows yet, and relays to factotum what is to be proven. An
// attacker who takes it over has this connection and nothing else.
//
// It trusts factotum and the kernel. It does not trust the client, and it takes
// nothing about itself from the user process.
package connection

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/crypto/ssh"

	"p9auth/capproto"
	"p9auth/internal/pack"
	"p9auth/internal/sockets"
	"p9auth/internal/sshdconf"
	"p9auth/sshfront/internal/channels"
	"p9auth/sshfront/internal/control"
	"p9auth/sshfront/internal/sshlog"
	"p9auth/sshfront/internal/userlink"
)

// Main is the connection process. It never returns.
func Main() {
	conf, err := control.ReadConfig(control.ConnConfigFD)
	if err != nil {
		fmt.Fprintf(os.Stderr, "sshfront: %v\n", err)
		os.Exit(control.ExitFailure)
	}
	sshlog.SetupChild(conf.LogLevel, conf.LogVerbose)
	status, err := serveConnection(conf)
	if err != nil {
		sshlog.Printf(sshdconf.LogFatal, "%v", err)
	}
	os.Exit(status)
}

// A connection speaks SSH with the one client of this process.
type connection struct {
	conf     *control.Config
	address  *sshdconf.Transport  // what holds for the address
	user     *sshdconf.Connection // what holds for the user; nil until there is a name
	factotum *capproto.Client
	client   socket
	stream   *quickAck // of the client's socket
	remote   netip.AddrPort

	hostKeys [][]byte                // that the client may learn: those that are offered and their successors
	all      ssh.ServerAuthCallbacks // of each method

	meta     ssh.ConnMetadata // of the client's connection, from its first request on
	named    bool             // factotum was told the user's name
	login    string           // the name
	methods  []string         // that are to be offered first
	greeting string           // to be shown first

	tried   bool   // the client offered a proof
	invalid bool   // it named a user who cannot log in
	refused bool   // RefuseConnection holds for its user
	over    bool   // factotum has ended the conversation
	begun   bool   // factotum knows of the client's security context of GSSAPI
	mic     []byte // that the client has made in it
	told    bool   // keyboard-interactive has shown why the account is refused
}

// serveConnection speaks SSH with the client. It returns the exit status.
func serveConnection(conf *control.Config) (int, error) {
	ctl, err := control.Open(control.ConnControlFD)
	if err != nil {
		return control.ExitFailure, err
	}
	f := os.NewFile(control.ConnSocketFD, "tcp")
	nc, err := net.FileConn(f)
	if err != nil {
		return control.ExitFailure, err
	}
	defer nc.Close()
	c := &connection{conf: conf}
	var ok bool
	if c.client, ok = nc.(socket); !ok {
		return control.ExitFailure, errors.New("the client's socket is not a stream")
	}
	c.remote = sockets.AddrPort(c.client.RemoteAddr())
	if !c.remote.IsValid() {
		sshlog.Printf(sshdconf.LogInfo, "Connection closed: the kernel has no address of it any more")
		return control.ExitOK, nil
	}
	if tcp, ok := nc.(*net.TCPConn); ok {
		if err := setKeepAlive(tcp, conf.TCPKeepAlive); err != nil {
			sshlog.Printf(sshdconf.LogError, "TCPKeepAlive: %v", err)
		}
	}
	link, err := capproto.FileConn(os.NewFile(control.ConnLinkFD, "link"), userlink.MaxPacket)
	if err != nil {
		return control.ExitFailure, fmt.Errorf("the link: %w", err)
	}
	defer link.Close()
	if c.factotum, err = capproto.Dial(conf.RPC); err != nil {
		return control.ExitFailure, err
	}
	defer c.factotum.Close()
	// The socket is passed to factotum first, if it is of TCP, as nothing can be passed
	// from inside of the sandbox. What factotum answers is the one thing that is read
	// outside of it.
	tcp := []*os.File{f}
	if c.remote == sockets.Unknown {
		tcp = nil
	}
	server, err := c.factotum.StartSSH(tcp...)
	f.Close()
	if e := enterSandbox(conf.Debug); e != nil {
		return control.ExitFailure, fmt.Errorf("sandbox: %w", e)
	}
	if err != nil {
		if capproto.CodeOf(err) == capproto.CodeDenied {
			return control.ExitRefused, nil
		}
		return control.ExitFailure, err
	}
	if c.address, err = sshdconf.TransportFormat.Decode(server.Settings); err != nil {
		return control.ExitFailure, pack.Between(err, "factotum", "sshfront")
	}
	sc, err := c.serverConfig(server)
	if err != nil {
		return control.ExitFailure, err
	}
	if c.stream, err = newQuickAck(c.client); err != nil {
		return control.ExitFailure, err
	}
	meter := channels.NewMeter(&identified{Conn: c.stream})
	conn, chans, reqs, err := ssh.NewServerConn(meter, sc)
	if err != nil {
		return c.ended(err), nil
	}
	defer conn.Close()
	if c.user == nil {
		return control.ExitFailure, errors.New("the SSH library let in a user whom factotum was not told of")
	}
	c.stream.done()
	if c.user.RekeyLimit.Bytes != c.address.RekeyLimit.Bytes {
		conn.RequestKeyExchange() // the user's limit counts from a key exchange on
	}
	if err := ctl.Authenticated(c.login); err != nil {
		sshlog.Printf(sshdconf.LogDebug1, "the listener has ended: %v", err)
	}
	user, err := c.startRedeemer(ctl, link)
	if err != nil {
		return control.ExitFailure, err
	}
	err = channels.Serve(conn, chans, reqs, user, channels.Options{
		Settings:    c.user,
		Log:         func(format string, a ...any) { sshlog.Printf(sshdconf.LogVerbose, format, a...) },
		Error:       func(format string, a ...any) { sshlog.Printf(sshdconf.LogError, format, a...) },
		Interactive: c.setQoS,
		HostKeys:    c.hostKeys,
		Prove:       c.factotum.Prove,
		Meter:       meter,
	})
	c.left(conn, err)
	return control.ExitOK, nil
}

// startRedeemer has the listener start a session process at the other end of the
// link, gives it the ticket, and returns the client for what it will become.
func (c *connection) startRedeemer(ctl *control.Conn, link *capproto.Conn) (*userlink.Client, error) {
	ticket, err := c.factotum.Ticket()
	if err != nil {
		return nil, err
	}
	if err := userlink.SendTicket(link, ticket); err != nil {
		return nil, err
	}
	if _, err := ctl.Session(); err != nil {
		return nil, err
	}
	return userlink.NewClient(link), nil
}
