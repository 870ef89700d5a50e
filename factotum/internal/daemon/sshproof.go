package daemon

import (
	"bytes"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"p9auth/capproto"
	"p9auth/factotum/internal/pamwire"
	"p9auth/factotum/internal/sshauth"
	"p9auth/factotum/internal/status"
	"p9auth/internal/authkeys"
	"p9auth/internal/sockets"
	"p9auth/internal/sshdconf"
	"p9auth/internal/words"
)

// auth judges one proof of RFC 4252.
func (l *sshProto) auth(p capproto.Packet) (capproto.Msg, error) {
	if l.sessionID == nil {
		return capproto.Msg{}, violation("auth before the key exchange")
	}
	user, given := p.Lookup("user")
	if !given {
		return capproto.Msg{}, violation("auth without a user")
	}
	method := p.Get("method")
	if !l.identified {
		if err := l.identify(user); err != nil {
			return capproto.Msg{}, err
		}
	}
	if withoutStyle(user) != l.name {
		return capproto.Msg{}, violation("Change of username is not allowed")
	}
	if l.state == talking {
		if err := l.giveUpQuestions(); err != nil {
			return capproto.Msg{}, err
		}
	}
	if l.state == accepting {
		if err := l.giveUpContext(); err != nil {
			return capproto.Msg{}, err
		}
	}
	l.offers++
	switch {
	case method == sshauth.None && l.offers == 1: // asks for the methods
		return capproto.Msg{}, l.denied()
	case !l.methods.MayTry(method):
		return l.failed(sshauth.Detail{Method: sshauth.Known(method)})
	case method == sshauth.Password:
		return l.slowly(func() (capproto.Msg, error) { return l.password(p.Get("data")) })
	case method == sshauth.GSSAPI:
		return l.beginContext()
	case method == sshauth.PublicKey:
		return l.slowly(func() (capproto.Msg, error) { return l.publickey(p) })
	}
	if err := l.authenticate(); err != nil {
		return capproto.Msg{}, err
	}
	l.state = talking
	return capproto.NewMsg(capproto.VerbOK), nil
}

// slowly judges a proof. A refusal takes at least the time that the user's name says.
func (l *sshProto) slowly(judge func() (capproto.Msg, error)) (capproto.Msg, error) {
	began := time.Now()
	m, err := judge()
	if capproto.CodeOf(err) == capproto.CodeDenied {
		l.sleep(l.delays.Rest(l.name, time.Since(began)))
	}
	return m, err
}

// giveUpQuestions ends keyboard-interactive: the client offers another proof
// before it has answered. It counts as a failure: otherwise workers could be had
// without end.
func (l *sshProto) giveUpQuestions() error {
	if l.accountAsked {
		return &fatal{&capproto.Error{Code: capproto.CodeAccount, Text: "the expired password was not changed"}}
	}
	l.dropPAM()
	l.guessedWrong()
	if _, err := l.failed(byInteractive); capproto.CodeOf(err) == capproto.CodeLimit {
		return err
	}
	return nil
}

// publickey judges a key, or a signature by it.
func (l *sshProto) publickey(p capproto.Packet) (capproto.Msg, error) {
	blob, err := capproto.UnB64(p.Get("key"))
	if err != nil {
		return capproto.Msg{}, violation("auth: %v", err)
	}
	key, err := sshauth.Parse(p.Get("alg"), blob, sshauth.Policy{Algorithms: l.conf.PubkeyAcceptedAlgorithms, RSABits: l.conf.RequiredRSASize})
	if err != nil {
		l.log.Info("public key refused", "user", l.userInLog, "rhost", l.host, "reason", err.Error())
		return l.failed(sshauth.Detail{Method: sshauth.PublicKey})
	}
	d := sshauth.DetailOf(key, l.conf.FingerprintHash)
	// A key counts once, with whatever certificates.
	if l.barred || slices.ContainsFunc(l.usedKeys, func(k []byte) bool { return bytes.Equal(k, key.Bare()) }) {
		return l.failed(d)
	}
	if !bytes.Equal(l.lookedAt, blob) {
		if err := l.lookForKey(blob); err != nil {
			return capproto.Msg{}, err
		}
	}
	if !l.allowed {
		return l.failed(d)
	}
	signature, signed := p.Lookup("sig")
	if !signed {
		return capproto.NewMsg(capproto.VerbOK), nil
	}
	sig, err := capproto.UnB64(signature)
	var boundTo []byte
	if p.Get("hostbound") == "yes" {
		boundTo = l.hostKey
	}
	if err == nil {
		err = key.Verify(l.sessionID, l.signedName, boundTo, sig, sshauth.RequiredFlags(l.conf.TouchRequired, l.conf.VerifyRequired, l.options))
	}
	if err != nil {
		l.log.Event(status.SignatureRefused, "user", l.userInLog, "rhost", l.host, "key", key.Fingerprint(l.conf.FingerprintHash), "reason", err.Error())
		return l.failed(d)
	}
	options := l.options
	if l.keyOptions != nil {
		merged, err := authkeys.Merge(*l.keyOptions, *options)
		if err != nil {
			l.sshlog(slog.LevelError, "error: Inconsistent authentication options: %v", err)
			return l.failed(d)
		}
		options = &merged
	}
	l.usedKeys = append(l.usedKeys, key.Bare())
	l.keyOptions = options
	l.proofs = append(l.proofs, "publickey "+key.Type()+" "+capproto.B64(blob))
	return l.succeeded(sshauth.PublicKey, d)
}

// lookForKey has the worker find out whether the key may log the user in.
func (l *sshProto) lookForKey(blob []byte) error {
	l.lookedAt, l.allowed, l.options = nil, false, nil
	if err := l.needWorker(); err != nil {
		return err
	}
	host := l.host
	if host == sockets.Host(l.remote.Addr()) {
		host = ""
	}
	if err := l.tell(pamwire.KeyQuery{
		Key: blob, Settings: capproto.B64(sshdconf.AuthFormat.Encode(l.conf.Auth())), Host: host, Addr: l.remote.Addr(),
		Ends: fmt.Sprintf("%s %d %s %d", sockets.Host(l.local.Addr()), l.local.Port(), sockets.Host(l.remote.Addr()), l.remote.Port()),
	}); err != nil {
		return err
	}
	e, err := l.await()
	if err != nil {
		return err
	}
	var notes []string
	switch e := e.(type) {
	case pamwire.KeyAllowed:
		b, err := capproto.UnB64(e.Options)
		if err != nil {
			return l.workerFailed(err)
		}
		o, err := authkeys.OptionsFormat.Decode(b)
		if err != nil {
			return l.workerFailed(err)
		}
		l.options, l.allowed, notes = o, true, e.Notes
	case pamwire.KeyDenied:
		notes = e.Notes
	default:
		return l.unexpected(e)
	}
	for _, n := range notes {
		l.sshlog(slog.LevelInfo, "%s", words.Vis(n))
	}
	l.lookedAt = blob
	return nil
}
