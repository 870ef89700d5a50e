package ssh

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"p9auth/capproto"
	"p9auth/internal/authkeys"
	"p9auth/internal/sshdconf"
)

// TestWhatProvesAUser is the other side of TestAFrontEndThatLies: what sshd would
// take as a proof, and what not, by each keyword and each option that has a
// say in it.
func TestWhatProvesAUser(t *testing.T) {
	b := up(t)
	for name, f := range map[string]func(*testing.T){
		"keys of each kind":                 b.kinds,
		"options of authorized_keys":        b.keyOptions,
		"security keys":                     b.securityKeys,
		"certificates":                      b.certificates,
		"AuthenticationMethods":             b.methods,
		"PermitRootLogin":                   b.root,
		"who may log in":                    b.who,
		"groups that are large and many":    b.groups,
		"what settings allow":               b.settings,
		"MaxAuthTries":                      b.tries,
		"LoginGraceTime":                    b.grace,
		"StrictModes":                       b.strict,
		"an expired password":               b.expired,
		"an account that may not be used":   b.account,
		"questions of keyboard-interactive": b.questions,
		"what is said of a user":            b.userVerb,
	} {
		t.Run(name, func(t *testing.T) {
			b.sshfront = b.relay(t, "_sshfront")
			f(t)
			b.configure(t, "")
		})
	}
}

// is says whether a reply is what was wanted: done, ok, "more M,M" or an error
// code.
func is(m capproto.Msg, want string) bool {
	switch m.Verb {
	case capproto.VerbError:
		return isError(m, want)
	case capproto.VerbMore:
		return "more "+m.Get("methods") == want
	}
	return m.Verb == want
}

// wantReply checks a reply.
func (k *talk) wantReply(what string, m capproto.Msg, want string) {
	k.t.Helper()
	if !is(m, want) {
		k.t.Errorf("%s: %s, not %s", what, show(m), want)
	}
}

// finish takes a login that was admitted to its capability, as sshfront does.
func (b *bed) finish(t *testing.T, k *talk, user string) capproto.Msg {
	t.Helper()
	s := b.sshfront.dial(t)
	s.want("ok", "attach", "ticket", k.want("ok", "ticket").Get("ticket"))
	s.want("ok", "session")
	for {
		m := s.ask("read")
		if m.Verb == capproto.VerbDone {
			break
		}
		if m.Verb != capproto.VerbOK {
			t.Fatalf("session: %s", show(m))
		}
	}
	m := s.want("ok", "authinfo")
	if uid := b.Sh(t, "id -u "+user); m.Get("user") != user || m.Get("uid") != uid {
		t.Errorf("user %s, uid %s: not %s, %s", m.Get("user"), m.Get("uid"), user, uid)
	}
	if c, err := capproto.Parse(m.Get("cap")); err != nil || fmt.Sprint(c.Grant.To) != m.Get("uid") {
		t.Errorf("the capability: %v, for %d", err, c.Grant.To)
	}
	s.close()
	return m
}

func (b *bed) kinds(t *testing.T) {
	ca := newKey(t, "ecdsa-384", 0)
	for kind, algs := range keyTypes {
		k0 := newKey(t, kind, 1)
		for _, alg := range algs {
			k0 := k0.as(t, alg)
			for _, key := range []key{k0, certify(t, ca, k0, nil)} {
				b.install(t, "alice", "# alice's\n\n"+k0.line("no-pty")+ca.line("cert-authority"))
				k := b.sshfront.connect(t)
				k.wantReply(key.alg+": a query", k.query("alice", key), "ok")
				k.wantReply(key.alg, k.login("alice", key), "done")
				m := b.finish(t, k, "alice")
				if want := fmt.Sprintf("publickey %s %s", key.pub.Type(), capproto.B64(key.blob())); m.Get("method") != want {
					t.Errorf("method %q", m.Get("method"))
				}
				if m.Get("remote") == "" || !strings.HasPrefix(m.Get("remote"), "127.0.0.1:") || m.Get("settings") == "" {
					t.Errorf("%s: remote %q, %d bytes of settings", key.alg, m.Get("remote"), len(m.Get("settings")))
				}
				k.close()
			}
		}
	}
}

// A trial is one offer of a key.
type trial struct {
	what   string
	keys   string // authorized_keys, or other lines
	key    key
	from   string // "" is 127.0.0.1
	want   string // done or denied
	logged string // if denied
}

// try offers alice's key, first without a signature, as clients do.
func (b *bed) try(t *testing.T, c trial) capproto.Msg {
	t.Helper()
	if c.from == "" {
		c.from = "127.0.0.1"
	}
	k := b.sshfront.connectFrom(t, c.from)
	var m capproto.Msg
	b.wantLogged(t, c.logged, -1, func() {
		m = k.login("alice", c.key)
		k.wantReply(c.what, m, c.want)
	})
	if m.Verb == capproto.VerbDone {
		m = b.finish(t, k, "alice")
	}
	k.close()
	return m
}

func (b *bed) keyOptions(t *testing.T) {
	ed, rsa := newKey(t, "ed25519", 0), newKey(t, "rsa", 0)
	for _, c := range []trial{
		{"another key's line before", rsa.line("") + ed.line(""), ed, "", "done", ""},
		{"a line in a comment", "#" + ed.line(""), ed, "", "denied", "Failed publickey"},
		{"a line that is none before", "nonsense\nssh-ed25519 AAAA\n" + ed.line(""), ed, "", "done", ""},
		{"an option that is none", ed.line("permit-everything"), ed, "", "denied", "Failed publickey"},
		{"from here", ed.line(`from="127.0.0.1"`), ed, "", "done", ""},
		{"from there", ed.line(`from="127.0.0.2"`), ed, "", "denied", "from"},
		{"from there, called from there", ed.line(`from="127.0.0.2"`), ed, "127.0.0.2", "done", ""},
		{"from a network", ed.line(`from="127.0.0.0/30"`), ed, "127.0.0.3", "done", ""},
		{"from beside a network", ed.line(`from="127.0.0.0/30"`), ed, "127.0.0.4", "denied", "from"},
		{"from all but one", ed.line(`from="!127.0.0.4,127.0.0.*"`), ed, "127.0.0.4", "denied", "from"},
		{"from all but another", ed.line(`from="!127.0.0.4,127.0.0.*"`), ed, "127.0.0.5", "done", ""},
		{"from nowhere", ed.line(`from=""`), ed, "", "denied", ""},
		{"a line that is refused, then one that is not", ed.line(`from="10.0.0.1"`) + ed.line(""), ed, "", "done", ""},
		{"expired", ed.line(`expiry-time="20200101"`), ed, "", "denied", "expired"},
		{"not expired", ed.line(`expiry-time="20991231"`), ed, "", "done", ""},
		{"a time that is none", ed.line(`expiry-time="tomorrow"`), ed, "", "denied", "Failed publickey"},
		{"an authority is no key", ed.line("cert-authority"), ed, "", "denied", "Failed publickey"},
		{"a key without rights", ed.line(`restrict,command="date"`), ed, "", "done", ""},
	} {
		b.install(t, "alice", c.keys)
		m := b.try(t, c)
		if c.what != "a key without rights" {
			continue
		}
		if o, err := options(m); err != nil || !o.HasCommand || o.Command != "date" {
			t.Errorf("options %s: %v", m.Get("options"), err)
		}
	}
}

// options are those of the key, in a reply to authinfo.
func options(m capproto.Msg) (*authkeys.Options, error) {
	b, err := capproto.UnB64(m.Get("options"))
	if err != nil {
		return nil, err
	}
	return authkeys.OptionsFormat.Decode(b)
}

func (b *bed) securityKeys(t *testing.T) {
	for _, kind := range []string{"sk-ed25519", "sk-ecdsa"} {
		for _, c := range []struct {
			conf, options string
			flags         byte
			want          string
			logged        string
		}{
			{"", "", 1, "done", ""},
			{"", "", 0, "denied", "was not touched"},
			{"", "", 4, "denied", "was not touched"},
			{"", "no-touch-required", 0, "done", ""},
			{"", "no-touch-required", 1, "done", ""},
			{"", "verify-required", 1, "denied", "did not verify its user"},
			{"", "verify-required", 5, "done", ""},
			{"", "verify-required", 4, "denied", "was not touched"},
			{"", "no-touch-required,verify-required", 4, "done", ""},
			{"", "no-touch-required,verify-required", 0, "denied", "did not verify its user"},
			{"PubkeyAuthOptions none", "", 0, "denied", "was not touched"},
			{"PubkeyAuthOptions none", "no-touch-required", 0, "done", ""},
			{"PubkeyAuthOptions touch-required", "", 0, "denied", "was not touched"},
			{"PubkeyAuthOptions touch-required", "no-touch-required", 0, "denied", "was not touched"},
			{"PubkeyAuthOptions verify-required", "", 1, "denied", "did not verify its user"},
			{"PubkeyAuthOptions verify-required", "no-touch-required", 4, "done", ""},
		} {
			b.configure(t, c.conf)
			sk := newKey(t, kind, c.flags)
			b.install(t, "alice", sk.line(c.options))
			what := fmt.Sprintf("%s, %q, %q, flags %d", kind, c.conf, c.options, c.flags)
			b.try(t, trial{what, "", sk, "", c.want, c.logged})
		}
	}
	// A certificate may have the options too.
	b.configure(t, "")
	ca := newKey(t, "ed25519", 0)
	b.install(t, "alice", ca.line("cert-authority"))
	with := func(kind string, flags byte, set func(*ssh.Certificate)) key {
		return certify(t, ca, newKey(t, kind, flags), set)
	}
	for _, kind := range []string{"sk-ed25519", "sk-ecdsa"} {
		noTouch := func(c *ssh.Certificate) { c.Extensions = map[string]string{"no-touch-required": ""} }
		verify := func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{"verify-required": ""} }
		b.try(t, trial{kind + " certificate", "", with(kind, 1, nil), "", "done", ""})
		b.try(t, trial{kind + " certificate without a touch", "", with(kind, 0, nil), "", "denied", "was not touched"})
		b.try(t, trial{kind + " certificate with no-touch-required in it alone", "", with(kind, 0, noTouch), "", "denied", "was not touched"})
		b.try(t, trial{kind + " certificate with verify-required", "", with(kind, 1, verify), "", "denied", "did not verify"})
		b.try(t, trial{kind + " certificate with verify-required, verified", "", with(kind, 5, verify), "", "done", ""})
		b.install(t, "alice", ca.line("cert-authority,no-touch-required"))
		b.try(t, trial{kind + " certificate with no-touch-required in both", "", with(kind, 0, noTouch), "", "done", ""})
		b.try(t, trial{kind + " certificate with no-touch-required in the line alone", "", with(kind, 0, nil), "", "denied", "was not touched"})
		b.install(t, "alice", "")
		b.Write(t, "/etc/ssh/cas", ca.line(""))
		b.Write(t, "/etc/ssh/principals", "alice\n")
		b.configure(t, "TrustedUserCAKeys /etc/ssh/cas\n")
		b.try(t, trial{kind + " certificate of a trusted authority without a touch", "", with(kind, 0, nil), "", "denied", "was not touched"})
		b.try(t, trial{kind + " certificate of a trusted authority with no-touch-required", "", with(kind, 0, noTouch), "", "done", ""})
		b.configure(t, "TrustedUserCAKeys /etc/ssh/cas\nAuthorizedPrincipalsFile /etc/ssh/principals\n")
		b.try(t, trial{kind + " certificate with no-touch-required, but not in the principals file", "", with(kind, 0, noTouch), "", "denied", "was not touched"})
		b.configure(t, "")
		b.install(t, "alice", ca.line("cert-authority"))
	}
}

func (b *bed) certificates(t *testing.T) {
	ca, other, ed := newKey(t, "ed25519", 0), newKey(t, "rsa", 0), newKey(t, "ed25519", 0)
	cert := func(change func(*ssh.Certificate)) key { return certify(t, ca, ed, change) }
	named := func(names ...string) key { return cert(func(c *ssh.Certificate) { c.ValidPrincipals = names }) }
	critical := func(name, value string) key {
		return cert(func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{name: value} })
	}
	serial := func(n uint64) key { return cert(func(c *ssh.Certificate) { c.Serial = n }) }
	b.Write(t, "/etc/ssh/cas", other.line("")+ca.line(""))
	b.Write(t, "/etc/ssh/principals", "# who may be alice\nops\nfrom=\"127.0.0.2\" night\n")
	b.Write(t, "/etc/ssh/revoked", ed.line(""))
	b.Write(t, "/etc/ssh/revoked-ca", ca.line(""))
	b.Write(t, "/etc/ssh/revoked-none", other.line(""))
	b.Write(t, "/etc/ssh/spec", "serial: 7\nserial: 100-200\n")
	b.Write(t, "/etc/ssh/ca.pub", ca.line(""))
	b.Sh(t, "ssh-keygen -q -k -f /etc/ssh/krl -s /etc/ssh/ca.pub /etc/ssh/spec")

	trust := "TrustedUserCAKeys /etc/ssh/cas\n"
	principals := trust + "AuthorizedPrincipalsFile /etc/ssh/principals\n"
	var none string
	for conf, trials := range map[string][]trial{
		"": {
			{"an authority that nobody trusts", none, cert(nil), "", "denied", "Failed publickey"},
			{"an authority of the user's", ca.line("cert-authority"), cert(nil), "", "done", ""},
			{"a line without cert-authority", ca.line(""), cert(nil), "", "denied", "Failed publickey"},
			{"the certificate's key alone is authorized", ed.line(""), cert(nil), "", "denied", "Failed publickey"},
			{"principals= with another", ca.line(`cert-authority,principals="ops,night"`), cert(nil), "", "denied", "authorized principal"},
			{"principals=", ca.line(`cert-authority,principals="ops,night"`), named("day", "night"), "", "done", ""},
			{"from= of the authority", ca.line(`cert-authority,from="10.0.0.0/8"`), cert(nil), "", "denied", "from"},
			{"expiry-time= of the authority", ca.line(`cert-authority,expiry-time="20200101"`), cert(nil), "", "denied", "expired"},
		},
		trust: {
			{"a certificate", none, cert(nil), "", "done", ""},
			{"one of several principals", none, named("bob", "alice"), "", "done", ""},
			{"another's", none, named("bob"), "", "denied", "principal"},
			{"in capitals", none, named("Alice"), "", "denied", "principal"},
			{"a pattern is no principal", none, named("*"), "", "denied", "principal"},
			{"no principal", none, named(), "", "denied", "principal"},
			{"expired", none, cert(func(c *ssh.Certificate) { c.ValidBefore = c.ValidAfter + 60 }), "", "denied", "expired"},
			{"not yet valid", none, cert(func(c *ssh.Certificate) { c.ValidAfter = c.ValidBefore - 60 }), "", "denied", "not yet valid"},
			{"valid for ever", none, cert(func(c *ssh.Certificate) { c.ValidAfter, c.ValidBefore = 0, ssh.CertTimeInfinity }), "", "done", ""},
			{"a host's", none, cert(func(c *ssh.Certificate) { c.CertType = ssh.HostCert }), "", "denied", "not for users"},
			{"source-address", none, critical("source-address", "127.0.0.0/8"), "", "done", ""},
			{"another source-address", none, critical("source-address", "10.0.0.0/8"), "", "denied", "Refusing certificate"},
			{"a source-address that is none", none, critical("source-address", "here"), "", "denied", "Refusing certificate"},
			{"an unknown demand", none, critical("only-on-sundays", ""), "", "denied", "critical option"},
			{"a key as it is", none, ed, "", "denied", "Failed publickey"},
			{"a stranger's certificate", none, certify(t, newKey(t, "ed25519", 0), ed, nil), "", "denied", "Failed publickey"},
			{"the second authority of the file", none, certify(t, other.as(t, ssh.KeyAlgoRSASHA512), ed, nil), "", "done", ""},
			{"signed with SHA-1", none, certify(t, other.as(t, ssh.KeyAlgoRSA), ed, nil), "", "denied", "CASignatureAlgorithms"},
		},
		principals: {
			{"a name of the file", none, named("ops"), "", "done", ""},
			{"the user's name is not in the file", none, named("alice"), "", "denied", "authorized principal"},
			{"a name with from=, from there", none, named("night"), "127.0.0.2", "done", ""},
			{"a name with from=, from here", none, named("night"), "", "denied", "not from a permitted host"},
		},
		trust + "AuthorizedPrincipalsFile /etc/ssh/no-such-file\n": {
			{"a file that is missing", none, cert(nil), "", "denied", "authorized principal"},
		},
		trust + "RevokedKeys /etc/ssh/revoked\n": {
			{"the certificate's key is revoked", none, cert(nil), "", "denied", "revoked"},
			{"a revoked key", ed.line(""), ed, "", "denied", "revoked"},
		},
		trust + "RevokedKeys /etc/ssh/revoked-ca\n": {
			{"the authority is revoked", none, cert(nil), "", "denied", "revoked"},
			{"a revoked authority of the user's", ca.line("cert-authority"), cert(nil), "", "denied", "revoked"},
		},
		trust + "RevokedKeys /etc/ssh/revoked-none\n": {
			{"another is revoked", none, cert(nil), "", "done", ""},
			{"another is revoked, for a key", ed.line(""), ed, "", "done", ""},
		},
		trust + "RevokedKeys /etc/ssh/krl\n": {
			{"a revoked serial", none, serial(7), "", "denied", "revoked"},
			{"a serial in a revoked range", none, serial(150), "", "denied", "revoked"},
			{"another serial", none, serial(8), "", "done", ""},
		},
		trust + "RevokedKeys /etc/ssh/no-such-file\n": {
			{"a list of revoked keys that is missing", ed.line(""), ed, "", "denied", "revoked"},
		},
		trust + "CASignatureAlgorithms rsa-sha2-512\n": {
			{"signed with another algorithm", none, cert(nil), "", "denied", "CASignatureAlgorithms"},
			{"signed with the algorithm", none, certify(t, other.as(t, ssh.KeyAlgoRSASHA512), ed, nil), "", "done", ""},
		},
		"TrustedUserCAKeys /etc/ssh/no-such-file\n": {
			{"a file of authorities that is missing", none, cert(nil), "", "denied", "TrustedUserCAKeys"},
		},
	} {
		b.configure(t, conf)
		for _, c := range trials {
			c.what = conf + c.what
			b.install(t, "alice", c.keys)
			b.try(t, c)
		}
	}
	b.configure(t, trust)
	b.install(t, "alice", "")
	m := b.try(t, trial{"a forced command", "", critical("force-command", "date"), "", "done", ""})
	if o, err := options(m); err != nil || !o.HasCommand || o.Command != "date" || o.PTY {
		t.Errorf("options %s: %v", m.Get("options"), err)
	}
}

// A step is one proof, and what is answered.
type step struct {
	by   func(k *talk) capproto.Msg
	want string
}

// steps are how users of a bed prove themselves.
func byKey(user string, key key) func(*talk) capproto.Msg {
	return func(k *talk) capproto.Msg { return k.login(user, key) }
}

func byPassword(user, password string) func(*talk) capproto.Msg {
	return func(k *talk) capproto.Msg { return k.password(user, password) }
}

// byAnswers answers the questions of keyboard-interactive, one after the other.
func byAnswers(user string, answers ...string) func(*talk) capproto.Msg {
	return func(k *talk) capproto.Msg {
		m, asked := k.ask("auth", "user", user, "method", "keyboard-interactive"), 0
		for m.Verb == capproto.VerbOK {
			if m = k.ask("read"); !capproto.Style(m.Get("style")).Question() {
				continue
			}
			if asked++; asked > len(answers) {
				k.t.Fatalf("one question more: %s", show(m))
			}
			m = k.ask("write", "data", answers[asked-1])
		}
		return m
	}
}

// climb goes through steps of one conversation, and checks who is admitted in
// the end.
func (b *bed) climb(t *testing.T, what, user string, steps ...step) {
	t.Helper()
	k := b.sshfront.connect(t)
	k.t = t
	last := ""
	for i, s := range steps {
		last = s.want
		k.wantReply(fmt.Sprintf("%s, step %d", what, i+1), s.by(k), s.want)
	}
	if last == capproto.VerbDone {
		b.finish(t, k, user)
		k.close()
	} else {
		k.wantNothing()
	}
}

func (b *bed) methods(t *testing.T) {
	ed, ed2 := newKey(t, "ed25519", 0), newKey(t, "ed25519", 0)
	ca := newKey(t, "ed25519", 0)
	cert := certify(t, ca, ed, nil)
	b.install(t, "alice", ed.line("")+ed2.line("")+ca.line("cert-authority"))
	key, pass, answers := byKey("alice", ed), byPassword("alice", password), byAnswers("alice", password)
	wrong, wrongAnswers := byPassword("alice", "wrong"), byAnswers("alice", "wrong")
	none := func(k *talk) capproto.Msg { return k.ask("auth", "user", "alice", "method", "none") }
	for conf, rows := range map[string][][]step{
		"": {
			{{none, "denied"}, {pass, "done"}}, {{answers, "done"}}, {{key, "done"}},
			// What PAM has refused before is forgotten.
			{{wrong, "denied"}, {key, "done"}}, {{wrongAnswers, "denied"}, {key, "done"}}, {{wrong, "denied"}, {wrong, "denied"}, {pass, "done"}},
			{{wrong, "denied"}, {wrongAnswers, "denied"}, {byKey("alice", ca), "denied"}, {key, "done"}},
		},
		"AuthenticationMethods any\n":       {{{pass, "done"}}, {{key, "done"}}},
		"AuthenticationMethods publickey\n": {{{pass, "denied"}, {answers, "denied"}, {key, "done"}}},
		"AuthenticationMethods password\n":  {{{key, "denied"}, {pass, "done"}}},
		"AuthenticationMethods publickey,password\n": {
			{{pass, "denied"}, {key, "more password"}, {key, "denied"}, {wrong, "denied"}, {answers, "denied"}, {pass, "done"}},
			{{key, "more password"}, {none, "denied"}},
			{{key, "more password"}, {byKey("alice", ed2), "denied"}},
			{{wrong, "denied"}, {pass, "denied"}},
		},
		"AuthenticationMethods publickey,keyboard-interactive\n": {
			{{answers, "denied"}, {key, "more keyboard-interactive"}, {pass, "denied"}, {wrongAnswers, "denied"}, {answers, "done"}},
			{{key, "more keyboard-interactive"}, {wrongAnswers, "denied"}},
		},
		"AuthenticationMethods publickey,keyboard-interactive:pam\n": {{{key, "more keyboard-interactive"}, {answers, "done"}}},
		"AuthenticationMethods keyboard-interactive,publickey\n": {
			{{key, "denied"}, {answers, "more publickey"}, {answers, "denied"}, {key, "done"}},
		},
		"AuthenticationMethods publickey,publickey\n": {
			{{key, "more publickey"}, {key, "denied"}, {byKey("alice", cert), "denied"}, {byKey("alice", ed2), "done"}},
			{{byKey("alice", cert), "more publickey"}, {key, "denied"}},
			{{key, "more publickey"}, {pass, "denied"}},
		},
		"AuthenticationMethods publickey,password keyboard-interactive\n": {
			{{key, "more password,keyboard-interactive"}, {pass, "done"}},
			{{key, "more password,keyboard-interactive"}, {answers, "done"}},
			{{answers, "done"}}, {{pass, "denied"}},
		},
		"Match User alice\nAuthenticationMethods publickey,password\n": {{{pass, "denied"}, {key, "more password"}, {pass, "done"}}},
		"Match User bob\nAuthenticationMethods publickey,password\n":   {{{pass, "done"}}},
	} {
		b.configure(t, conf)
		for _, steps := range rows {
			b.climb(t, conf, "alice", steps...)
		}
	}
}

func (b *bed) root(t *testing.T) {
	ed, forced := newKey(t, "ed25519", 0), newKey(t, "ed25519", 0)
	b.Sh(t, "install -d -m 700 /root/.ssh && chmod 700 /root && chown root:root /root")
	b.Write(t, "/root/.ssh/authorized_keys", ed.line("")+forced.line(`command="date"`))
	const key, command, pass, answers = 0, 1, 2, 3
	ways := []func(*talk) capproto.Msg{byKey("root", ed), byKey("root", forced), byPassword("root", password), byAnswers("root", password)}
	names := []string{"key", "key with a command", "password", "keyboard-interactive"}
	for conf, good := range map[string][]int{
		"":                                               {key, command},
		"PermitRootLogin yes\n":                          {key, command, pass, answers},
		"PermitRootLogin prohibit-password\n":            {key, command},
		"PermitRootLogin without-password\n":             {key, command},
		"PermitRootLogin forced-commands-only\n":         {command},
		"PermitRootLogin no\n":                           {},
		"Match Address 127.0.0.1\nPermitRootLogin yes\n": {key, command, pass, answers},
		"Match Address 10.0.0.1\nPermitRootLogin yes\n":  {key, command},
	} {
		b.configure(t, conf)
		for i, by := range ways {
			want := "denied"
			if slices.Contains(good, i) {
				want = "done"
			}
			b.climb(t, conf+names[i], "root", step{by, want})
		}
	}
	b.configure(t, "PermitRootLogin no\n")
	b.wantLogged(t, "ROOT LOGIN REFUSED", 1, func() { b.climb(t, "log", "root", step{byKey("root", ed), "denied"}) })
}

func (b *bed) who(t *testing.T) {
	ed := newKey(t, "ed25519", 0)
	b.install(t, "alice", ed.line(""))
	for conf, want := range map[string]string{
		"AllowUsers alice\n":                             "done",
		"AllowUsers bob\n":                               "not listed in AllowUsers",
		"AllowUsers a*\n":                                "done",
		"AllowUsers alice@127.0.0.1\n":                   "done",
		"AllowUsers alice@10.0.0.0/8\n":                  "not listed in AllowUsers",
		"DenyUsers alice\n":                              "listed in DenyUsers",
		"DenyUsers bob\n":                                "done",
		"DenyUsers alice@10.0.0.1\n":                     "done",
		"AllowUsers alice\nDenyUsers al*\n":              "listed in DenyUsers",
		"AllowGroups wizards\n":                          "done",
		"AllowGroups alice\n":                            "done",
		"AllowGroups muggles\n":                          "none of user's groups are listed in AllowGroups",
		"DenyGroups wizards\n":                           "a group is listed in DenyGroups",
		"DenyGroups muggles\n":                           "done",
		"AllowGroups alice\nDenyGroups wizards\n":        "a group is listed in DenyGroups",
		"Match Group wizards\nDenyUsers alice\n":         "listed in DenyUsers",
		"Match Group muggles\nDenyUsers alice\n":         "done",
		"Match User bob\nDenyUsers alice\n":              "done",
		"Match Address 127.0.0.0/8\nAllowUsers bob\n":    "not listed in AllowUsers",
		"Match LocalAddress 127.0.0.1\nAllowUsers bob\n": "not listed in AllowUsers",
	} {
		b.configure(t, conf)
		for name, by := range map[string]func(*talk) capproto.Msg{
			"key": byKey("alice", ed), "password": byPassword("alice", password), "keyboard-interactive": byAnswers("alice", password),
		} {
			if want == "done" {
				b.climb(t, conf+name, "alice", step{by, "done"})
				continue
			}
			// Every method after another, as what one has found must not help
			// the next.
			b.wantLogged(t, want, -1, func() {
				b.climb(t, conf+name, "alice", step{by, "denied"}, step{byAnswers("alice", password), "denied"}, step{byKey("alice", ed), "denied"},
					step{byPassword("alice", password), "denied"})
			})
		}
	}
}

// groups has rules about groups that are larger, or more, than a machine alone
// has them. A rule that cannot be checked lets nobody in.
func (b *bed) groups(t *testing.T) {
	ed := newKey(t, "ed25519", 0)
	b.install(t, "alice", ed.line(""))
	b.Sh(t, "cp /etc/group /etc/group.before")
	defer b.Sh(t, "mv /etc/group.before /etc/group")
	members := func(bytes int) string {
		var s strings.Builder
		for i := 0; s.Len() < bytes; i++ {
			fmt.Fprintf(&s, "member%07d,", i)
		}
		return s.String() + "alice"
	}
	many := ""
	for i := range 2000 {
		many += fmt.Sprintf("many%d:x:%d:alice\n", i, 1000000+i)
	}
	const unknown = "the user's groups cannot be had"
	for _, c := range []struct{ what, group, conf, want string }{
		{"many members", "large:x:999999:" + members(1<<20) + "\n", "DenyGroups large\n", "a group is listed in DenyGroups"},
		{"many members", "large:x:999999:" + members(1<<20) + "\n", "AllowGroups large\n", "done"},
		{"many members", "large:x:999999:" + members(1<<20) + "\n", "Match Group large\nDenyUsers alice\n", "listed in DenyUsers"},
		{"too many members", "large:x:999999:" + members(17<<20) + "\n", "DenyGroups large\n", unknown},
		{"too many members", "large:x:999999:" + members(17<<20) + "\n", "AllowGroups alice\n", unknown},
		{"too many members", "large:x:999999:" + members(17<<20) + "\n", "Match Group large\nDenyUsers alice\n", unknown},
		{"too many members", "large:x:999999:" + members(17<<20) + "\n", "AllowUsers alice\n", "done"},
		{"many groups", many[:strings.Index(many, "many1000:")], "DenyGroups many999\n", "a group is listed in DenyGroups"},
		{"too many groups", many, "DenyGroups many1999\n", unknown},
		{"too many groups", many, "DenyGroups muggles\n", unknown},
		{"too many groups", many, "", "done"},
		{"long names", strings.ReplaceAll(many[:strings.Index(many, "many1000:")], "many", strings.Repeat("n", 200)), "DenyGroups muggles\n", unknown},
		{"a group without a name", "", "DenyGroups muggles\n", "done"},
	} {
		b.Sh(t, "cp /etc/group.before /etc/group")
		b.Write(t, "/etc/group.more", c.group)
		b.Sh(t, "cat /etc/group.more >>/etc/group")
		gid := b.Sh(t, "id -g alice")
		if c.group == "" {
			b.Sh(t, "sed -i -E '/^alice:/s/^(([^:]*:){3})[0-9]*/\\154321/' /etc/passwd")
		}
		b.configure(t, c.conf)
		if c.want == "done" {
			b.climb(t, c.what+c.conf, "alice", step{byKey("alice", ed), "done"})
		} else {
			b.wantLogged(t, c.want, -1, func() {
				b.climb(t, c.what+c.conf, "alice", step{byKey("alice", ed), "denied"}, step{byPassword("alice", password), "denied"})
			})
		}
		b.Sh(t, "sed -i -E '/^alice:/s/^(([^:]*:){3})[0-9]*/\\1"+gid+"/' /etc/passwd")
	}
}

func (b *bed) settings(t *testing.T) {
	ed, rsa := newKey(t, "ed25519", 0), newKey(t, "rsa", 0)
	b.install(t, "alice", ed.line("")+rsa.line(""))
	b.Write(t, "/etc/ssh/keys-alice", rsa.line(""))
	b.Sh(t, "id eve >/dev/null 2>&1 || useradd --create-home eve; passwd -q -d eve; sed -i 's/^auth required pam_unix.so/& nullok/' /etc/pam.d/sshd")
	defer b.Write(t, "/etc/pam.d/sshd", service)
	key, pass, answers := byKey("alice", ed), byPassword("alice", password), byAnswers("alice", password)
	for conf, steps := range map[string][]step{
		"PubkeyAuthentication no\n":                              {{key, "denied"}, {pass, "done"}},
		"PasswordAuthentication no\n":                            {{pass, "denied"}, {answers, "done"}},
		"KbdInteractiveAuthentication no\n":                      {{answers, "denied"}, {pass, "done"}},
		"AuthorizedKeysFile none\n":                              {{key, "denied"}},
		"AuthorizedKeysFile /etc/ssh/keys-%u\n":                  {{key, "denied"}, {byKey("alice", rsa), "done"}},
		"AuthorizedKeysFile .ssh/none %h/.ssh/authorized_keys\n": {{key, "done"}},
		"PubkeyAcceptedAlgorithms rsa-sha2-512\n":                {{key, "denied"}, {byKey("alice", rsa), "denied"}, {byKey("alice", rsa.as(t, ssh.KeyAlgoRSASHA512)), "done"}},
		"PubkeyAcceptedAlgorithms +ssh-rsa\n":                    {{byKey("alice", rsa.as(t, ssh.KeyAlgoRSA)), "done"}},
		"PubkeyAcceptedAlgorithms -nosuch\n":                     {{byKey("alice", rsa.as(t, ssh.KeyAlgoRSA)), "denied"}},
		"RequiredRSASize 3072\n":                                 {{byKey("alice", rsa), "denied"}, {key, "done"}},
		"RequiredRSASize 2048\n":                                 {{byKey("alice", rsa), "done"}},
	} {
		b.configure(t, conf)
		b.climb(t, conf, "alice", steps...)
	}
	b.configure(t, "")
	b.climb(t, "an empty password", "eve", step{byPassword("eve", ""), "denied"})
	b.configure(t, "PermitEmptyPasswords yes\n")
	b.climb(t, "PermitEmptyPasswords", "eve", step{byPassword("eve", ""), "done"})
	b.climb(t, "PermitEmptyPasswords for those who have one", "alice", step{byPassword("alice", ""), "denied"})
}

func (b *bed) tries(t *testing.T) {
	ed := newKey(t, "ed25519", 0)
	b.install(t, "alice", ed.line(""))
	wrong := byPassword("alice", "wrong")
	for _, n := range []int{1, 2, 4} {
		b.configure(t, fmt.Sprintf("MaxAuthTries %d\n", n))
		var steps []step
		for range n - 1 {
			steps = append(steps, step{wrong, "denied"})
		}
		b.climb(t, "the last try is right", "alice", append(slices.Clone(steps), step{byPassword("alice", password), "done"})...)
		for name, by := range map[string]func(*talk) capproto.Msg{
			"password": wrong, "keyboard-interactive": byAnswers("alice", "wrong"), "publickey": byKey("alice", newKey(t, "ed25519", 0)),
			"a query":         func(k *talk) capproto.Msg { return k.query("alice", newKey(t, "ed25519", 0)) },
			"a bad signature": func(k *talk) capproto.Msg { return k.prove("alice", ed, ssh.Marshal(ed.sign([]byte("x")))) },
		} {
			b.wantLogged(t, "maximum authentication attempts exceeded for alice", 1, func() {
				k := b.sshfront.connect(t)
				k.t = t
				for _, s := range steps {
					k.wantReply(name, s.by(k), s.want)
				}
				k.wantEnd(fmt.Sprintf("%s, try %d", name, n), by(k), capproto.CodeLimit)
			})
		}
	}
}

func (b *bed) grace(t *testing.T) {
	b.configure(t, "LoginGraceTime 1\n")
	for _, state := range []string{"exchanged", "asked"} {
		b.wantLogged(t, "conversation ended: timeout", 1, func() {
			k := b.to(t, state, key{})
			// What comes unasked is the end.
			k.wantEnd("LoginGraceTime in "+state, k.hear(), capproto.CodeTimeout)
		})
	}
}

func (b *bed) strict(t *testing.T) {
	ed := newKey(t, "ed25519", 0)
	const file = "/home/alice/.ssh/authorized_keys"
	defer b.Sh(t, "gpasswd -d bob alice")
	b.Sh(t, "gpasswd -a bob alice") // a group of the user alone may write, as with Debian's sshd
	for _, c := range []struct{ what, do, undo, strict, lax string }{
		{"as it should be", "true", "true", "done", "done"},
		{"a home that its group can write", "chmod g+w /home/alice", "chmod g-w /home/alice", "denied", "done"},
		{"a home that all can write", "chmod o+w /home/alice", "chmod o-w /home/alice", "denied", "done"},
		{"a .ssh that its group can write", "chmod g+w /home/alice/.ssh", "chmod g-w /home/alice/.ssh", "denied", "done"},
		{"a file that its group can write", "chmod g+w " + file, "chmod g-w " + file, "denied", "done"},
		{"a file of another's", "chown bob " + file + "; chmod 644 " + file, "chown alice " + file, "denied", "done"},
		{"a home of another's", "chown bob /home/alice; chmod 755 /home/alice", "chown alice /home/alice", "denied", "done"},
		// Whatever StrictModes says: it is the user who opens the file.
		{"a file that the user cannot read", "chown root:root " + file + "; chmod 600 " + file, "chown alice:alice " + file, "denied", "denied"},
		{"a directory that the user cannot enter", "chown root /home/alice/.ssh; chmod 700 /home/alice/.ssh", "chown alice /home/alice/.ssh", "denied", "denied"},
		{"no file", "mv " + file + " /home/alice/x", "mv /home/alice/x " + file, "denied", "denied"},
		{"a pipe", "mv " + file + " /home/alice/x; mkfifo " + file, "rm " + file + "; mv /home/alice/x " + file, "denied", "denied"},
		{"a directory", "mv " + file + " /home/alice/x; mkdir " + file, "rmdir " + file + "; mv /home/alice/x " + file, "denied", "denied"},
		{"a link to a device without end", "mv " + file + " /home/alice/x; ln -s /dev/zero " + file, "rm " + file + "; mv /home/alice/x " + file, "denied", "denied"},
		{"a link to a terminal", "mv " + file + " /home/alice/x; ln -s /dev/tty " + file, "rm " + file + "; mv /home/alice/x " + file, "denied", "denied"},
		{"a link to a file of the reader's in /proc", "mv " + file + " /home/alice/x; ln -s /proc/self/environ " + file, "rm " + file + "; mv /home/alice/x " + file, "denied", "denied"},
		{"a link to a descriptor of the reader's", "mv " + file + " /home/alice/x; ln -s /proc/self/fd/0 " + file, "rm " + file + "; mv /home/alice/x " + file, "denied", "denied"},
		{"a socket", "mv " + file + " /home/alice/x; /usr/bin/python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"" + file + "\")'", "rm -f " + file + "; mv /home/alice/x " + file, "denied", "denied"},
		{"a link to a secret of root's", "mv " + file + " /root/x; chmod 600 /root/x; chown root /root/x; ln -s /root/x " + file, "rm " + file + "; mv /root/x " + file + "; chown alice " + file, "denied", "denied"},
	} {
		b.install(t, "alice", ed.line(""))
		b.Sh(t, "chown -R alice:alice /home/alice; chmod 755 /home/alice; chmod 700 /home/alice/.ssh; chmod 600 "+file)
		b.Sh(t, c.do)
		b.configure(t, "")
		b.climb(t, c.what, "alice", step{byKey("alice", ed), c.strict})
		b.configure(t, "StrictModes no\n")
		b.climb(t, c.what+", StrictModes no", "alice", step{byKey("alice", ed), c.lax})
		b.Sh(t, c.undo)
	}
	b.configure(t, "")
	b.Sh(t, "chmod g+w /home/alice")
	defer b.Sh(t, "chmod g-w /home/alice")
	b.wantLogged(t, "Authentication refused: ", -1, func() { b.climb(t, "log", "alice", step{byKey("alice", ed), "denied"}) })
}

func (b *bed) expired(t *testing.T) {
	ed := newKey(t, "ed25519", 0)
	b.install(t, "bob", ed.line(""))
	key, pass := byKey("bob", ed), byPassword("bob", password)
	old := func() {
		t.Helper()
		b.Sh(t, "echo bob:"+password+" | chpasswd -c SHA512 -s 1000; chage -d 0 bob")
	}
	const fresh = "entirely-other-words-17"
	old()
	b.climb(t, "answers", "bob", step{byAnswers("bob", password, password, fresh, fresh), "done"})
	b.climb(t, "after the change", "bob", step{byPassword("bob", password), "denied"}, step{byPassword("bob", fresh), "done"})
	// With another last proof the session can do nothing but change it: sshfront's
	// test of the front end's owner has what comes of that.
	old()
	b.climb(t, "a key", "bob", step{key, "done"})
	b.climb(t, "a password", "bob", step{pass, "done"})
	b.configure(t, "AuthenticationMethods publickey,password\n")
	b.climb(t, "two proofs", "bob", step{key, "more password"}, step{pass, "done"})
	b.configure(t, "")
	// Nobody gets round it.
	for what, steps := range map[string][]step{
		"a wrong password": {{byAnswers("bob", password, "wrong"), "account"}},
		"no new one": {{func(k *talk) capproto.Msg {
			k.ask("auth", "user", "bob", "method", "keyboard-interactive")
			for _, word := range []string{"", password} {
				if word != "" {
					k.ask("write", "data", word)
				}
				for m := k.ask("read"); m.Verb == "ok" && !strings.HasPrefix(m.Get("style"), "echo"); {
					m = k.ask("read")
				}
			}
			return k.ask("auth", "user", "bob", "method", "none")
		}, "account"}},
	} {
		old()
		b.climb(t, what, "bob", steps...)
	}
	b.Sh(t, "echo bob:"+password+" | chpasswd -c SHA512 -s 1000")
}

func (b *bed) account(t *testing.T) {
	ed := newKey(t, "ed25519", 0)
	b.install(t, "bob", ed.line(""))
	b.Sh(t, "chage -E 0 bob")
	defer b.Sh(t, "chage -E -1 bob")
	for name, by := range map[string]func(*talk) capproto.Msg{
		"key": byKey("bob", ed), "password": byPassword("bob", password), "keyboard-interactive": byAnswers("bob", password),
	} {
		b.wantLogged(t, "Access denied for user bob by PAM account configuration", 1, func() {
			k := b.sshfront.connect(t)
			k.t = t
			k.wantEnd(name, by(k), capproto.CodeAccount)
		})
	}
}

// questions has PAM say something after the question.
func (b *bed) questions(t *testing.T) {
	b.Write(t, "/run/greet", "#!/bin/sh\necho 'the machine is old'\n")
	b.Sh(t, "chmod 755 /run/greet")
	b.Write(t, "/etc/pam.d/sshd", "auth required pam_unix.so nodelay\nauth required pam_exec.so stdout /run/greet\n"+strings.TrimPrefix(service, "auth required pam_unix.so nodelay\n"))
	defer b.Write(t, "/etc/pam.d/sshd", service)
	k := b.sshfront.connect(t)
	k.want("ok", "auth", "user", "alice", "method", "keyboard-interactive")
	var said []string
	m := k.ask("read")
	for ; m.Verb == capproto.VerbOK; m = k.ask("read") {
		said = append(said, m.Get("style")+" "+strings.TrimSpace(m.Get("text")))
		if capproto.Style(m.Get("style")).Question() {
			k.want("ok", "write", "data", password)
		}
	}
	if m.Verb != capproto.VerbDone || fmt.Sprint(said) != "[echo-off Password: info the machine is old]" {
		t.Errorf("%s after %q", show(m), said)
	}
	b.finish(t, k, "alice")
	k.close()
	// With a password, what PAM says waits for the session.
	k = b.sshfront.connect(t)
	k.wantReply("password", k.password("alice", password), "done")
	if m := b.finish(t, k, "alice"); strings.TrimSpace(m.Get("message")) != "the machine is old" {
		t.Errorf("message %q", m.Get("message"))
	}
	k.close()
}

// userVerb has factotum say what holds for a user before there is a proof.
func (b *bed) userVerb(t *testing.T) {
	b.Write(t, "/etc/ssh/banner", "for all")
	b.Write(t, "/etc/ssh/banner-alice", "for alice")
	b.Sh(t, "head -c 131073 /dev/zero | tr '\\0' x >/etc/ssh/banner-long; printf 'a\\0b' >/etc/ssh/banner-nul; [ -e /etc/ssh/banner-pipe ] || mkfifo /etc/ssh/banner-pipe")
	const all = "publickey,password,keyboard-interactive"
	const forAlice = "Banner /etc/ssh/banner\nPasswordAuthentication no\nMaxAuthTries 3\nMatch User alice\nBanner /etc/ssh/banner-alice\nPasswordAuthentication yes\nMaxAuthTries 9"
	for _, c := range []struct {
		conf, user, methods, banner string
		tries                       int
		logged                      string
	}{
		{"", "alice", all, "", 6, ""},
		{"Banner /etc/ssh/banner", "alice", all, "for all", 6, ""},
		{"Match Address 127.0.0.1\nBanner /etc/ssh/banner", "alice", all, "for all", 6, ""},
		{forAlice, "alice", all, "for alice", 9, ""},
		{forAlice, "bob", "publickey,keyboard-interactive", "for all", 3, ""},
		{forAlice, "mallory", "publickey,keyboard-interactive", "for all", 3, "Invalid user mallory"},
		{"Match User alice\nAuthenticationMethods publickey,password", "alice", "publickey", "", 6, ""},
		{"Match User alice\nAuthenticationMethods publickey,password", "bob", all, "", 6, ""},
		{"PubkeyAuthentication no\nPasswordAuthentication no\nKbdInteractiveAuthentication no", "alice", "", "", 6, ""},
		{"Banner /etc/ssh/banner\nMatch User alice\nBanner none", "alice", all, "", 6, ""},
		{"Match Group wizards\nBanner /etc/ssh/banner-alice", "alice", all, "for alice", 6, ""},
		{"Match Group wizards\nBanner /etc/ssh/banner-alice", "bob", all, "", 6, ""},
		{"Match Group wizards\nBanner /etc/ssh/banner-alice", "mallory", all, "", 6, ""},
		{"DenyUsers alice", "alice", all, "", 6, "listed in DenyUsers"},
		{"Match invalid-user\nBanner /etc/ssh/banner", "mallory", all, "for all", 6, ""},
		{"Banner /etc/ssh/missing", "alice", all, "", 6, "the banner is not shown"},
		{"Match User alice\nBanner /etc/ssh/banner-long", "alice", all, "", 6, "banner-long: longer than 131072 bytes"},
		{"Match User alice\nBanner /etc/ssh/banner-nul", "alice", all, "", 6, "has a NUL byte"},
		{"Banner /etc/ssh/banner-pipe", "alice", all, "", 6, ""},
	} {
		b.configure(t, c.conf)
		b.wantLogged(t, c.logged, -1, func() {
			k := b.sshfront.connect(t)
			m := k.want("ok", "user", "name", c.user)
			blob, err := capproto.UnB64(m.Get("settings"))
			if err != nil {
				t.Fatal(err)
			}
			if set, err := sshdconf.ConnectionFormat.Decode(blob); err != nil || set.MaxAuthTries != c.tries {
				t.Errorf("%q: %s has settings %+v: %v", c.conf, c.user, set, err)
			}
			if m.Get("banner") != c.banner || m.Get("methods") != c.methods {
				t.Errorf("%q: %s has the banner %q, methods %s", c.conf, c.user, m.Get("banner"), m.Get("methods"))
			}
			if got, want := m.Get("invalid") == "yes", c.user == "mallory" || c.conf == "DenyUsers alice"; got != want {
				t.Errorf("%q: %s is invalid: %v", c.conf, c.user, got)
			}
			// It proves nothing.
			k.wantNothing()
		})
	}
	b.configure(t, "Match User alice\nRefuseConnection yes")
	b.wantLogged(t, "administratively prohibited connection for alice from 127.0.0.1", 1, func() {
		k := b.sshfront.connect(t)
		k.wantEnd("RefuseConnection", k.ask("user", "name", "alice"), capproto.CodeDenied)
	})
	b.configure(t, "")
	named := func(k *talk) capproto.Msg { return k.ask("user", "name", "alice") }
	b.climb(t, "a password afterwards", "alice", step{named, "ok"}, step{byPassword("alice", password), "done"})
	for what, then := range map[string]func(*talk) capproto.Msg{
		"the same user again": named,
		"another user":        func(k *talk) capproto.Msg { return k.ask("user", "name", "bob") },
		"another user's try":  byPassword("bob", password),
	} {
		b.wantLogged(t, "protocol violation", 1, func() {
			k := b.sshfront.connect(t)
			k.t = t
			k.wantReply("the user", named(k), "ok")
			k.wantEnd(what, then(k), capproto.CodeProtocol)
		})
	}
	for what, f := range map[string]func(*talk) capproto.Msg{
		"after a proof": func(k *talk) capproto.Msg { k.password("alice", "wrong"); return named(k) },
		"no name":       func(k *talk) capproto.Msg { return k.ask("user") },
		"no user":       func(k *talk) capproto.Msg { return k.ask("auth", "method", "none") },
	} {
		b.wantLogged(t, "protocol violation", 1, func() {
			k := b.sshfront.connect(t)
			k.t = t
			k.wantEnd(what, f(k), capproto.CodeProtocol)
		})
	}
}
