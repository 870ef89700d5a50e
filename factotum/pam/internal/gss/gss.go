// Package gss is what the PAM worker's program has to do with GSSAPI and Kerberos
// (RFC 4462): it accepts the security context of a client, and asks whether a principal
// may be a user. MIT's libraries do both.
//
// They are two processes. Run is that of an acceptor: factotum-pam that factotum has
// started with the arguments "gss" and "strict" or "any", for one client's tokens. Before
// main, and before it has a second thread, it takes the host's keys from the keytab and gives
// up all other rights (acceptor.c, confine.c): it has a uid of its own, no
// capability, and can open nothing to write, connect to nothing and execute nothing. Who
// takes it over has the host's keys, and so can be any user whom Kerberos lets in here,
// but neither root by itself nor another user. It says which principal the client is. It
// does not say who that may be: UserOK does, in the PAM worker, with the user's own rights.
package gss

/*
#cgo CFLAGS: -D_GNU_SOURCE -Wall
#cgo LDFLAGS: -ldl
#include <stdlib.h>
#include "library.h"
*/
import "C"

import (
	"errors"
	"fmt"
	"unsafe"

	"p9auth/capproto"
	"p9auth/factotum/internal/pamwire"
)

// problemSize bounds what the libraries say of a failure, in bytes.
const problemSize = 512

// A problem is the room for it.
type problem struct{ b [problemSize]byte }

func (p *problem) at() (*C.char, C.size_t) {
	return (*C.char)(unsafe.Pointer(&p.b[0])), problemSize
}

func (p *problem) String() string { return C.GoString((*C.char)(unsafe.Pointer(&p.b[0]))) }

// UserOK asks whether a Kerberos principal may be a user: krb5_kuserok(3), which reads the
// user's ~/.k5login. Whoever calls it has the user's rights. why says why not.
func UserOK(principal, user string) (ok bool, why string) {
	p, u := C.CString(principal), C.CString(user)
	defer C.free(unsafe.Pointer(p))
	defer C.free(unsafe.Pointer(u))
	var w problem
	text, size := w.at()
	ok = C.p9_userok(p, u, text, size) != 0
	return ok, w.String()
}

// An acceptor accepts one security context.
type acceptor struct {
	conn        *capproto.Conn
	tokens      int
	established bool
	over        bool
}

// Run answers factotum's questions about one client until factotum hangs up, which is
// io.EOF.
func Run(conn *capproto.Conn) error {
	p, err := conn.Recv()
	p.Close()
	if err != nil {
		return err
	}
	if err := pamwire.CheckFactotum(p.Msg); err != nil {
		conn.Send(pamwire.Refusal(p.Msg).Encode())
		return err
	}
	if err := conn.Send(pamwire.Hello{Version: pamwire.Version}.Encode()); err != nil {
		return err
	}
	a := acceptor{conn: conn}
	for {
		p, err := conn.Recv()
		if err != nil {
			return err
		}
		n := len(p.Files)
		p.Close()
		r, err := pamwire.DecodeRequest(p.Msg, n)
		if err != nil {
			return err
		}
		e, err := a.answer(r)
		if err != nil {
			return err
		}
		if err := conn.Send(e.Encode()); err != nil {
			return err
		}
	}
}

// answer answers one request. After a no there is nothing that could follow.
func (a *acceptor) answer(r pamwire.Request) (pamwire.Event, error) {
	var w problem
	text, size := w.at()
	if a.over {
		return nil, errors.New("the security context is over")
	}
	if C.p9_ready(text, size) == 0 {
		return a.refuse(&w), nil
	}
	switch r := r.(type) {
	case pamwire.GSSToken:
		if a.established || a.tokens == pamwire.MaxTokens {
			return nil, errors.New("a token too many")
		}
		a.tokens++
		return a.accept(r.Token), nil
	case pamwire.GSSMIC:
		a.over = true
		return a.verify(r), nil
	}
	return nil, fmt.Errorf("%s to an acceptor", r.Encode().Verb)
}

func (a *acceptor) refuse(w *problem) pamwire.Event {
	a.over = true
	return pamwire.Refused{Code: capproto.CodeDenied, Text: pamwire.Fit(w.String(), problemSize)}
}

func (a *acceptor) accept(token []byte) pamwire.Event {
	var w problem
	text, size := w.at()
	in := C.CBytes(token)
	defer C.free(in)
	var out unsafe.Pointer
	var length C.size_t
	done := C.p9_accept(in, C.size_t(len(token)), &out, &length, text, size)
	defer C.free(out)
	if done < 0 {
		return a.refuse(&w)
	}
	if length > pamwire.MaxToken {
		copy(w.b[:], "the answer to the token is too long")
		return a.refuse(&w)
	}
	a.established = done == 1
	return pamwire.GSSContinue{Token: C.GoBytes(out, C.int(length)), Done: a.established}
}

// verify checks the MIC, and says who the client is.
func (a *acceptor) verify(r pamwire.GSSMIC) pamwire.Event {
	var w problem
	text, size := w.at()
	message, mic := C.CBytes(r.Message), C.CBytes(r.MIC)
	defer C.free(message)
	defer C.free(mic)
	if !a.established || C.p9_verify(message, C.size_t(len(r.Message)), mic, C.size_t(len(r.MIC)), text, size) == 0 {
		return a.refuse(&w)
	}
	var name *C.char
	var length C.size_t
	C.p9_principal(&name, &length)
	e := pamwire.GSSProven{Principal: C.GoStringN(name, C.int(length))}
	var cache unsafe.Pointer
	switch n := C.p9_delegated(&cache, &length, text, size); {
	case n < 0:
		return a.refuse(&w)
	case n > 0 && length > pamwire.MaxToken:
		C.free(cache)
		copy(w.b[:], "the delegated credentials are too long")
		return a.refuse(&w)
	case n > 0:
		e.Cache = C.GoBytes(cache, C.int(length))
		C.free(cache)
	}
	return e
}
