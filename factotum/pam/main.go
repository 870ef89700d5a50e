// Factotum-pam is the PAM worker: one process for one conversation, from
// pam_start(3) to pam_end(3).
//
// factotum starts it as root with a socket as descriptor 3, and nobody else
// does. It is the one program of p9auth that is linked dynamically, because
// libpam loads modules and NSS does too; a module that crashes, hangs or leaks
// costs one conversation. It trusts factotum and the modules that the
// administrator configured. It reads nothing from a front end: answers come
// through factotum. Files of a user's own, such as authorized_keys, it opens
// with that user's fsuid and groups; a program that looks keys up it runs as the
// user that the configuration names (command.go).
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
//	lookup user= [addr=]                   account uid= gid= home= shell= [group=]... [nogroups=why], or nouser; and host=
//	key key= settings= [host=] addr=       allowed options=, or denied; both with note=...
//	    ends=, both ends of the connection
//	begin service= user= [tty= rhost=      ok [log=], the name as logs may have it
//	    confdir= env=... lastlog=yes] + tty
//	authenticate [null=no]                 prompt style= text=..., then proven user=, or error
//	answer data=, or answer fail=yes       (to a prompt that is a question)
//	account                                prompt..., then done user=, or error
//	session pid= + pidfd                   prompt..., then opened user= uid= gid= groups= ..., or error
//	adopt pid= (begin's, opened's) + pidfd nothing; it takes over a session whose worker died
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
	"p9auth/internal/version"
)

func init() { runtime.LockOSThread() }

func main() {
	if len(os.Args) == 2 && os.Args[1] == "-V" {
		fmt.Print(version.Text("factotum-pam", "github.com/msteinert/pam/v2"))
		return
	}
	slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, nil)).With("pid", os.Getpid()))
	// The line of a terminal that was ours to give back may hang up; the
	// session's end is what ends us. They are caught and forgotten, as what
	// modules execute would go on ignoring an ignored signal.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP, syscall.SIGINT, syscall.SIGPIPE, syscall.SIGTERM)
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
	acct    *account  // who was looked up last
	opening bool
	silent  pam.Flags

	ttyName, rhost string // PAM_TTY and PAM_RHOST
	printLast      bool   // the user wants to be told of their last login
}

// run does what factotum says until a session is open or factotum is gone. A
// refusal is an answer; other errors end the worker.
func (w *worker) run() error {
	for {
		p, err := w.conn.Recv()
		if err != nil {
			w.end()
			return err
		}
		var m capproto.Msg
		switch {
		case p.Verb == "adopt":
			return w.adopt(p)
		case p.Verb == "lookup":
			m, err = w.lookup(p)
		case p.Verb == "key" && w.acct != nil:
			m, err = w.key(p.Msg)
		case p.Verb == "begin" && w.tx == nil:
			m, err = w.begin(p)
		case p.Verb == "authenticate" && w.tx != nil:
			m, err = w.authenticate(p.Get("null") == "no")
		case p.Verb == "account" && w.tx != nil:
			m, err = w.account()
		case p.Verb == "session" && w.acct != nil && w.tx != nil && len(p.Files) == 1:
			s, err := w.open(p)
			if err == nil {
				return w.serve(s)
			}
			p.Close()
			w.end()
			return w.report(err)
		default:
			err = fmt.Errorf("%s out of turn", p.Verb)
		}
		p.Close()
		if err != nil {
			if err := w.report(err); err != nil {
				w.end()
				return err
			}
			continue
		}
		if err := w.conn.Send(m); err != nil {
			w.end()
			return err
		}
	}
}

// report tells factotum of an error. It returns nil for a refusal.
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

// begin starts the transaction.
func (w *worker) begin(p capproto.Packet) (capproto.Msg, error) {
	if len(p.Files) > 0 {
		var err error
		if w.tty, err = openTerminal(p.Files[0]); err != nil {
			return capproto.Msg{}, err
		}
	}
	m := capproto.NewMsg(capproto.VerbOK)
	if p.Get("tty") != sshTTY {
		m.Add("log", nameForLog(p.Get("user")))
	}
	return m, w.transaction(p.Msg)
}

// transaction calls pam_start and sets what PAM shall know of the login.
func (w *worker) transaction(m capproto.Msg) error {
	w.service, w.ttyName, w.rhost = m.Get("service"), m.Get("tty"), m.Get("rhost")
	w.printLast = m.Get("lastlog") == "yes"
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
	}{{pam.Tty, m.Get("tty")}, {pam.Rhost, m.Get("rhost")}} {
		if i.value == "" {
			continue
		}
		if err := w.tx.SetItem(i.item, i.value); err != nil {
			return fmt.Errorf("pam_set_item: %w", err)
		}
	}
	for _, kv := range m.All("env") {
		if err := w.tx.PutEnv(kv); err != nil {
			return fmt.Errorf("pam_putenv: %w", err)
		}
	}
	return nil
}

// authenticate asks PAM whether the user is who they say. It can be called
// again after a refusal.
func (w *worker) authenticate(noEmpty bool) (capproto.Msg, error) {
	var flags pam.Flags
	if noEmpty {
		flags = pam.DisallowNullAuthtok
	}
	if err := w.tx.Authenticate(flags); err != nil {
		if !errors.Is(err, pam.ErrConv) && !errors.Is(err, pam.ErrAbort) {
			w.recordFailure()
		}
		return capproto.Msg{}, w.refused(capproto.CodeDenied, "Login incorrect", err)
	}
	user, err := w.tx.GetItem(pam.User)
	if err != nil {
		return capproto.Msg{}, fmt.Errorf("pam_get_item: %w", err)
	}
	return capproto.NewMsg("proven", "user", user), nil
}

// account asks whether the account may log in now, and has a password changed
// that has expired.
func (w *worker) account() (capproto.Msg, error) {
	err := w.tx.AcctMgmt(0)
	if errors.Is(err, pam.ErrNewAuthtokReqd) {
		err = w.tx.ChangeAuthTok(pam.ChangeExpiredAuthtok)
	}
	if err != nil {
		return capproto.Msg{}, w.refused(capproto.CodeAccount, "", err)
	}
	// A module may have changed the name.
	user, err := w.tx.GetItem(pam.User)
	if err != nil {
		return capproto.Msg{}, fmt.Errorf("pam_get_item: %w", err)
	}
	if w.acct, err = lookup(user); err != nil {
		if errors.Is(err, errNoUser) {
			return capproto.Msg{}, &capproto.Error{Code: capproto.CodeDenied, Text: "Login incorrect"}
		}
		return capproto.Msg{}, err
	}
	return capproto.NewMsg(capproto.VerbDone, "user", user), nil
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
		if !w.opening {
			return "", pam.ErrConv
		}
		return "", nil // nobody listens any more; the session still has to be closed
	}
	if !style.Question() {
		return "", nil
	}
	p, err := w.conn.Recv()
	if err != nil || p.Verb != "answer" || p.Get("fail") == "yes" {
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
