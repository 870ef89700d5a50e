package daemon

import (
	"crypto/rand"
	"errors"
	"time"

	"golang.org/x/crypto/ssh"

	"p9auth/capproto"
	"p9auth/factotum/internal/sshauth"
)

// giveNonce makes the nonce of the next key exchange. There is never more than
// one.
func (l *sshProto) giveNonce() string {
	l.nonce = new(sshauth.Nonce)
	rand.Read(l.nonce[:])
	return capproto.B64(l.nonce[:])
}

// nextNonce gives the nonce of a later key exchange. Where they come too fast, it
// takes its time.
func (l *sshProto) nextNonce(capproto.Packet) (capproto.Msg, error) {
	if l.nonce != nil {
		return capproto.Msg{}, violation("nonce: the one before is not used")
	}
	if wait := l.pace.Next(time.Now()); wait > 0 {
		if !l.hurried {
			l.hurried = true
			l.log.Warn("very many key exchanges in one connection; factotum slows them down")
		}
		l.sleep(wait)
	}
	return capproto.NewMsg(capproto.VerbOK, "nonce", l.giveNonce()), nil
}

// sign signs a key exchange with a host key: the hash of a transcript that has
// this conversation's nonce, and that no other signature was made for. Before the
// user is proven it signs one only: its hash is the session id.
func (l *sshProto) sign(p capproto.Packet) (capproto.Msg, error) {
	switch {
	case l.sessionID != nil && l.state&(admitted|handedOver) == 0:
		return capproto.Msg{}, violation("sign: a second key exchange before authentication")
	case l.nonce == nil:
		return capproto.Msg{}, violation("sign: a key exchange without a nonce")
	}
	hostKey, err := capproto.UnB64(p.Get("key"))
	if err != nil {
		return capproto.Msg{}, violation("sign: %v", err)
	}
	transcript, err := capproto.UnB64(p.Get("transcript"))
	if err != nil {
		return capproto.Msg{}, violation("sign: %v", err)
	}
	defer clear(transcript) // it has the shared secret
	exchange, err := sshauth.ParseExchange(transcript, p.Get("hash"))
	if err != nil {
		return capproto.Msg{}, violation("sign: %v", err)
	}
	if err := exchange.Check(l.version, *l.nonce, hostKey); err != nil {
		return capproto.Msg{}, violation("sign: %v", err)
	}
	if err := exchange.CheckMethod(l.conf.KexAlgorithms, p.Get("alg")); err != nil {
		return capproto.Msg{}, violation("sign: %v", err)
	}
	l.nonce = nil
	hash := exchange.Hash()
	sig, err := l.gen.ssh.sign(hostKey, p.Get("alg"), l.conf.HostKeyAlgorithms, hash)
	if err != nil {
		return capproto.Msg{}, l.unsigned("sign", err)
	}
	if l.sessionID == nil {
		l.sessionID, l.hostKey = hash, hostKey
	}
	l.algorithm = sig.Format
	return capproto.NewMsg(capproto.VerbOK, "sig", capproto.B64(ssh.Marshal(sig))), nil
}

// unsigned is the error of a signature that was not made: the front end's fault, or
// that of an agent or a security key.
func (l *sshProto) unsigned(verb string, err error) error {
	if errors.As(err, new(*signerError)) {
		l.log.Error("a host key does not sign", "why", err)
		return &fatal{&capproto.Error{Code: capproto.CodeInternal, Text: "the host key does not sign: see factotum's log"}}
	}
	return violation("%s: %v", verb, err)
}

// prove has a host key prove to the client that this server has it, so that the
// client may learn it: hostkeys-prove-00@openssh.com in OpenSSH's PROTOCOL, section
// 2.5. All that is signed is factotum's own: the session id and the host key. A key
// signs once; who asks again gets the same.
func (l *sshProto) prove(p capproto.Packet) (capproto.Msg, error) {
	hostKey, err := capproto.UnB64(p.Get("key"))
	if err != nil {
		return capproto.Msg{}, violation("prove: %v", err)
	}
	sig := l.proved[string(hostKey)]
	if sig == nil {
		s, err := l.gen.ssh.prove(hostKey, l.algorithm, l.conf.HostKeyAlgorithms, l.sessionID)
		if err != nil {
			return capproto.Msg{}, l.unsigned("prove", err)
		}
		if l.proved == nil {
			l.proved = map[string][]byte{}
		}
		sig = ssh.Marshal(s)
		l.proved[string(hostKey)] = sig
	}
	return capproto.NewMsg(capproto.VerbOK, "sig", capproto.B64(sig)), nil
}
