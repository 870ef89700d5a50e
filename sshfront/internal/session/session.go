// Package session is the session process of sshfront, one for each login: the
// redeemer. The listener starts it as _sshfront, outside of the sandbox, since it
// redeems the capability. It reads nothing but a ticket from the connection
// process before it becomes the user process (package user).
//
// It trusts factotum and the kernel. A ticket is worth nothing unless factotum
// has made it for a login that a proof has won.
package session

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/internal/capuse"
	"p9auth/internal/privs"
	"p9auth/internal/sshdconf"
	"p9auth/internal/sys"
	"p9auth/sshfront/internal/control"
	"p9auth/sshfront/internal/sshlog"
	"p9auth/sshfront/internal/user"
	"p9auth/sshfront/internal/userlink"
)

// Main is the session process. It becomes the user process, or says on
// the link why it does not.
func Main() {
	conf, err := config()
	if err != nil {
		fmt.Fprintf(os.Stderr, "sshfront: %v\n", err)
		os.Exit(control.ExitFailure)
	}
	sshlog.SetupChild(conf.LogLevel, conf.LogVerbose)
	link, err := dupLink()
	if err != nil {
		sshlog.Printf(sshdconf.LogFatal, "%v", err)
		os.Exit(control.ExitFailure)
	}
	err = redeem(conf, link)
	sshlog.Printf(sshdconf.LogError, "session: %v", err)
	text := userlink.NotOpened
	if e := new(capproto.Error); errors.As(err, &e) {
		text = e.Text
	}
	userlink.Refuse(link, text)
	os.Exit(control.ExitFailure)
}

// config reads a copy of the configuration's descriptor, which itself
// stays open: its place is kept for the Info, and nothing else may come to be
// there meanwhile.
func config() (*control.Config, error) {
	fd, err := unix.FcntlInt(control.SessionConfigFD, unix.F_DUPFD_CLOEXEC, 10)
	if err != nil {
		return nil, fmt.Errorf("no configuration: this process is started by the listener only: %w", err)
	}
	return control.ReadConfig(fd)
}

// dupLink wraps a copy of the link: the descriptor itself is for the user
// process.
func dupLink() (*capproto.Conn, error) {
	fd, err := unix.FcntlInt(control.SessionLinkFD, unix.F_DUPFD_CLOEXEC, 10)
	if err != nil {
		return nil, fmt.Errorf("no link: this process is started by the listener only: %w", err)
	}
	return capproto.FileConn(os.NewFile(uintptr(fd), "link"), userlink.MaxPacket)
}

// redeem takes the login over, has the PAM session opened for this process
// and becomes the user. It returns only an error.
func redeem(conf *control.Config, link *capproto.Conn) error {
	// No other process of _sshfront sees the capability, and no core file has
	// it; a limit of core files would be the user's, too.
	if err := privs.Undumpable(); err != nil {
		return err
	}
	unix.CloseOnExec(control.SessionErrorFD) // a copy of it is for become
	ticket, err := userlink.ReceiveTicket(link)
	if err != nil {
		return err
	}
	factotum, err := capproto.Dial(conf.RPC)
	if err != nil {
		return err
	}
	if err := factotum.Attach(ticket); err != nil {
		return err
	}
	if err := factotum.Session(); err != nil {
		return err
	}
	var says []string
	err = factotum.Converse(func(p capproto.Prompt) (string, error) {
		if p.Style.Question() {
			return "", nil // there is nobody to ask
		}
		says = append(says, p.Text)
		return "", nil
	})
	if err != nil {
		return err
	}
	auth, err := factotum.AuthInfo()
	if err != nil {
		return err
	}
	auth.Messages = append(auth.Messages, says...)
	client, err := netip.ParseAddrPort(auth.Remote)
	if err != nil {
		return err
	}
	server, err := netip.ParseAddrPort(auth.Local)
	if err != nil {
		return err
	}
	info, err := user.NewInfo(auth, client, server)
	if err != nil {
		return err
	}
	memfd, err := info.Memfd()
	if err != nil {
		return err
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	if err := info.Apply(); err != nil {
		return err
	}
	// What the user process inherits: the link, the Info, the conversation with factotum,
	// and in place of the log the pipe, of which the listener takes a few lines.
	logFD, err := unix.FcntlInt(2, unix.F_DUPFD_CLOEXEC, 10)
	if err != nil {
		return err
	}
	conversation, err := factotum.File()
	if err != nil {
		return err
	}
	if err := errors.Join(dupTo(int(memfd.Fd()), control.SessionConfigFD), keep(control.SessionLinkFD), dupTo(control.SessionErrorFD, 2),
		dupTo(int(conversation.Fd()), control.UserFactotumFD)); err != nil {
		return err
	}
	// Factotum has bound the grant to the same program, and to what it says of the
	// login; the target is for the kernel's capability device, which binds nothing.
	err = capuse.Exec(conf.Capuse, auth.Cap, capuse.Target{
		Path:  program,
		Argv:  []string{"sshfront: " + auth.User, "user"},
		Env:   append([]string{"PATH=/usr/local/bin:/usr/bin:/bin"}, sys.SmallRuntime...),
		NProc: auth.NProc,
	})
	return errors.Join(err, dupTo(logFD, 2))
}

// dupTo makes new a copy of the descriptor that is inherited.
func dupTo(fd, new int) error {
	if fd == new {
		return keep(fd)
	}
	if err := unix.Dup3(fd, new, 0); err != nil {
		return fmt.Errorf("dup3: %w", err)
	}
	return nil
}

// keep lets a descriptor be inherited.
func keep(fd int) error {
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
		return fmt.Errorf("fcntl: %w", err)
	}
	return nil
}
