// Factotum-pam is the PAM worker: one process for one conversation, from
// pam_start(3) to pam_end(3).
//
// factotum starts it as root with a socket as descriptor 3, and nobody else does.
// It is the one program of p9auth that is linked dynamically, because libpam loads
// modules and NSS does too; a module that crashes, hangs or leaks costs one
// conversation. It trusts factotum and the modules that the administrator
// configured, and reads nothing from a front end.
//
// It outlives factotum: once a session is open it waits for the end of the
// session's process (a pidfd), gives the terminal back, closes the PAM session and
// ends, whether or not anybody still listens.
//
// Its parts are in internal/: conversation answers what factotum asks (the words
// are in factotum/internal/pamwire), session opens and closes PAM's session, keys
// decides about SSH keys, gss accepts security contexts of GSSAPI (in a process of its
// own, which has no rights) and decides about Kerberos principals, records writes utmp and the like, nss looks users up, and
// asuser reads a user's files.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"os"
	"runtime"

	"p9auth/capproto"
	"p9auth/factotum/pam/internal/conversation"
	"p9auth/factotum/pam/internal/gss"
	"p9auth/factotum/pam/internal/log"
	"p9auth/internal/privs"
	_ "p9auth/internal/undumpable" // it holds passwords
	"p9auth/internal/version"
)

// PAM runs on the main thread only: modules write /proc/self/loginuid, which only
// that thread may, and a keyring and the fsuid belong to a thread.
func init() { runtime.LockOSThread() }

func main() {
	if len(os.Args) == 2 && os.Args[1] == "-V" {
		fmt.Print(version.Text("factotum-pam", "github.com/msteinert/pam/v2"))
		return
	}
	if len(os.Args) == 3 && os.Args[1] == "gss" {
		accept()
		return
	}
	catchSignals()
	restoreNoFile()
	giveUpProtection()
	if err := privs.Undumpable(); err != nil { // it holds passwords
		fail(err)
	}
	conn, err := capproto.BlockingConn(os.NewFile(3, "factotum"), capproto.MaxReply)
	if err != nil {
		fmt.Fprintln(os.Stderr, "factotum-pam: factotum starts this program; it cannot be started by hand")
		os.Exit(2)
	}
	if err := conversation.New(conn).Run(); err != nil && !errors.Is(err, io.EOF) {
		fail(err)
	}
}

// accept is the acceptor of GSSAPI: it has no rights since before main, see package gss.
func accept() {
	conn, err := capproto.BlockingConn(os.NewFile(3, "factotum"), capproto.MaxReply)
	if err == nil {
		err = gss.Run(conn)
	}
	if !errors.Is(err, io.EOF) {
		fail(err)
	}
}

// giveUpProtection makes this process one that the kernel's out-of-memory killer may take,
// as one login's, with what PAM's modules execute. factotum, all logins', is protected by
// its service manager.
func giveUpProtection() {
	const score = "/proc/self/oom_score_adj" // proc_pid_oom_score_adj(5)
	if b, err := os.ReadFile(score); err == nil && bytes.HasPrefix(b, []byte{'-'}) {
		if err := os.WriteFile(score, []byte{'0'}, 0); err != nil {
			log.Warn("PAM worker", "error", err.Error())
		}
	}
}

func fail(err error) {
	log.Error("PAM worker", "error", err.Error())
	os.Exit(1)
}
