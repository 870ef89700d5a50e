// Factotum-pam is the PAM worker: one process for one conversation, from
// pam_start(3) to pam_end(3).
//
// factotum starts it as root with a socket as descriptor 3, and nobody else
// does. It is the one program of p9auth that is linked dynamically, because
// libpam loads modules and NSS does too; a module that crashes, hangs or leaks
// costs one conversation. It trusts factotum and the modules that the
// administrator configured. It reads nothing from a front end: answers come
// through factotum.
//
// PAM runs on the main thread only: modules write /proc/self/loginuid, which
// only that thread may, and keyrings and fsuid are a thread's own.
//
// It outlives factotum: once a session is open, it waits for the end of the
// session's process (a pidfd) and then gives the terminal back, closes the PAM
// session and ends, whether or not anybody still listens.
//
// On the socket, in the form of package capproto:
//
//	factotum says                          the worker answers
//	start service= user= [tty= rhost=      prompt style= text=, then done user=, or error
//	    preauth=yes confdir=] + tty
//	answer data=                           (as before)
//	session pid= + pidfd                   prompt..., then opened user= uid= gid= groups= ..., or error
//	adopt (start's and opened's) + pidfd   nothing; it takes over a session whose worker died
//	                                       closing, closed: at the end of the session
package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/msteinert/pam/v2"
	"golang.org/x/sys/unix"

	"p9auth/capproto"
)

func init() { runtime.LockOSThread() }

func main() {
	slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, nil)).With("pid", os.Getpid()))
	// The line of a terminal that was ours to give back may hang up; the
	// session's end is what ends us.
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGPIPE, syscall.SIGTERM)
	restoreNoFile()
	unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) // it holds passwords

	conn, err := capproto.FileConn(os.NewFile(3, "factotum"), capproto.MaxReply)
	if err != nil {
		fmt.Fprintln(os.Stderr, "factotum-pam: is started by factotum, not by hand")
		os.Exit(2)
	}
	w := &worker{conn: conn}
	if err := w.run(); err != nil && !errors.Is(err, io.EOF) {
		slog.Error("PAM worker", "error", err.Error())
		os.Exit(1)
	}
}

// A worker is one PAM transaction.
type worker struct {
	conn    *capproto.Conn
	tx      *pam.Transaction
	service string
	tty     *terminal // or nil
	acct    *account
	silent  pam.Flags
}

func (w *worker) run() error {
	p, err := w.conn.Recv()
	if err != nil {
		return err
	}
	switch p.Verb {
	case "start":
		err = w.start(p)
	case "adopt":
		return w.adopt(p)
	default:
		err = fmt.Errorf("%s out of turn", p.Verb)
	}
	if err != nil {
		w.end()
		return w.report(err)
	}
	if p, err = w.conn.Recv(); err != nil {
		w.end()
		return err
	}
	if p.Verb != "session" || len(p.Files) != 1 {
		w.end()
		return fmt.Errorf("%s out of turn", p.Verb)
	}
	s, err := w.open(p)
	if err != nil {
		p.Close()
		w.end()
		return w.report(err)
	}
	return w.serve(s)
}

// report tells factotum why the worker stops. A refusal is the normal end of
// a worker, other errors are returned.
func (w *worker) report(err error) error {
	var e *capproto.Error
	if errors.As(err, &e) {
		return w.conn.Send(e.Msg())
	}
	if errors.Is(err, io.EOF) {
		return err
	}
	w.conn.Send((&capproto.Error{Code: capproto.CodeInternal, Text: "the PAM worker failed; the administrator finds the reason in factotum's log"}).Msg())
	return err
}

// begin starts the transaction and sets what PAM shall know of the login.
func (w *worker) begin(m capproto.Msg) error {
	w.service = m.Get("service")
	var err error
	if dir := m.Get("confdir"); dir != "" {
		w.tx, err = pam.StartConfDir(w.service, m.Get("user"), pam.ConversationFunc(w.converse), dir)
	} else {
		w.tx, err = pam.StartFunc(w.service, m.Get("user"), w.converse)
	}
	if err != nil {
		return fmt.Errorf("pam_start: %w", err)
	}
	for _, i := range []struct {
		item  pam.Item
		value string
	}{{pam.Tty, m.Get("tty")}, {pam.Rhost, m.Get("rhost")}, {pam.Ruser, m.Get("ruser")}} {
		if i.value == "" {
			continue
		}
		if err := w.tx.SetItem(i.item, i.value); err != nil {
			return fmt.Errorf("pam_set_item: %w", err)
		}
	}
	return nil
}

// start authenticates the user and asks whether the account may log in now.
func (w *worker) start(p capproto.Packet) error {
	if len(p.Files) > 0 {
		var err error
		if w.tty, err = openTerminal(p.Files[0]); err != nil {
			return err
		}
		p.Close()
	}
	if err := w.begin(p.Msg); err != nil {
		return err
	}
	if p.Get("preauth") != "yes" {
		if err := w.tx.Authenticate(0); err != nil {
			return w.refused(capproto.CodeDenied, "Login incorrect", err)
		}
	}
	err := w.tx.AcctMgmt(0)
	if errors.Is(err, pam.ErrNewAuthtokReqd) {
		err = w.tx.ChangeAuthTok(pam.ChangeExpiredAuthtok)
	}
	if err != nil {
		return w.refused(capproto.CodeAccount, "", err)
	}
	// A module may have changed the name.
	user, err := w.tx.GetItem(pam.User)
	if err != nil {
		return fmt.Errorf("pam_get_item: %w", err)
	}
	if w.acct, err = lookup(user); err != nil {
		if errors.Is(err, errNoUser) {
			return &capproto.Error{Code: capproto.CodeDenied, Text: "Login incorrect"}
		}
		return err
	}
	return w.conn.Send(capproto.NewMsg(capproto.VerbDone, "user", user))
}

// refused is PAM's verdict as an error for the person: text, or PAM's own.
func (w *worker) refused(code, text string, err error) error {
	if errors.Is(err, pam.ErrConv) || errors.Is(err, pam.ErrAbort) || errors.Is(err, pam.ErrSystem) {
		slog.Warn("PAM broke off", "service", w.service, "error", err.Error())
	}
	if text == "" {
		text = err.Error()
	}
	return &capproto.Error{Code: code, Text: text}
}

// converse answers PAM: see pam_conv(3).
func (w *worker) converse(s pam.Style, text string) (string, error) {
	var style capproto.Style
	switch s {
	case pam.PromptEchoOff:
		style = capproto.EchoOff
	case pam.PromptEchoOn:
		style = capproto.EchoOn
	case pam.TextInfo:
		style = capproto.Info
	case pam.ErrorMsg:
		style = capproto.Failure
	default:
		return "", pam.ErrConv // binary prompts and what else there may be
	}
	const maxText = 16 << 10
	if err := w.conn.Send(capproto.NewMsg("prompt", "style", string(style), "text", clean(text, maxText))); err != nil {
		if w.acct == nil {
			return "", pam.ErrConv
		}
		return "", nil // nobody listens any more; the session still has to be closed
	}
	if !style.Question() {
		return "", nil
	}
	p, err := w.conn.Recv()
	if err != nil || p.Verb != "answer" {
		return "", pam.ErrConv
	}
	return p.Get("data"), nil
}

// clean makes a module's text fit for a packet.
func clean(s string, n int) string {
	b := []byte(s)
	if len(b) > n {
		b = b[:n]
	}
	for i, c := range b {
		if c == 0 {
			b[i] = '?'
		}
	}
	return string(b)
}

// end ends the transaction.
func (w *worker) end() {
	if w.tx != nil {
		w.tx.End()
	}
}
