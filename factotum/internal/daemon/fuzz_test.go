package daemon

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"p9auth/capproto"
	"p9auth/factotum/internal/pamwire"
	"p9auth/factotum/internal/status"
	"p9auth/internal/authkeys"
	"p9auth/internal/sshdconf"
)

// A tape is the fuzzer's bytes. When it has come to its end it says 0.
type tape struct{ b []byte }

func (t *tape) next(n int) int {
	if len(t.b) == 0 {
		return 0
	}
	v := int(t.b[0]) % n
	t.b = t.b[1:]
	return v
}

// A trial is one run of the fuzz target: conversations of the two front ends, what
// they were told, and what a proof there was by which to judge it.
type trial struct {
	t          *testing.T
	b          *bench
	answer     *tape // what workers say
	tokens     []*givenToken
	fronts     []*trialFront
	caps       map[string]bool
	exists     map[string]bool // the names that a worker has said to be accounts
	principals map[string]bool // that a worker was asked about
}

// A givenToken is a handover token, and the truth of the login that it stands for.
type givenToken struct {
	text string
	used int
	*truth
}

// A truth is what the test knows of a login, by the words of the workers that it
// wrote itself and by the signatures that it made itself.
type truth struct {
	proofs int // of this login
	user   string
	last   *fakeWorker
}

type trialFront struct {
	*front
	proto   string
	root    bool
	fresh   []byte // a nonce that was given and that no signature was made with
	first   []byte // the first nonce
	hashes  int    // that were signed before the user was proven
	done    bool   // the user is proven, as factotum says
	ended   bool
	authed  string // the user's name as first given
	given   []capproto.Hash
	attach  *givenToken
	tokens  int
	preauth bool
	*truth
}

// workerSays makes up what a worker says to a request: often the right thing.
func (tr *trial) workerSays(w *fakeWorker, r pamwire.Request) []pamwire.Event {
	n := tr.answer.next(12)
	e := obliging(w, r)
	switch r := r.(type) {
	case pamwire.Lookup:
		w.user = r.User
		if r.User == "carol" {
			e = []pamwire.Event{accountOf(accountName(r.User))}
		}
	case pamwire.Answer:
		e = []pamwire.Event{pamwire.Proven{User: w.user}}
	case pamwire.CheckAccount:
		a := accountValid(accountName(w.user))
		a.Expired = r.Later && n == 8
		e = []pamwire.Event{a}
	case pamwire.OpenSession:
		e = []pamwire.Event{opened(accountName(w.user))}
	case pamwire.KerberosUser:
		tr.principals[r.Principal] = true // who has made a MIC
	}
	if _, ok := r.(pamwire.Answer); ok && n%3 == 1 {
		e = []pamwire.Event{pamwire.Refused{Code: capproto.CodeDenied, Text: "Login incorrect"}}
	}
	if n == 11 {
		e = append([]pamwire.Event{tr.anything()}, e...)
	}
	if n == 10 {
		e = []pamwire.Event{tr.anything()}
	}
	if n == 9 {
		e = nil
	}
	for _, e := range e {
		tr.note(w, e)
	}
	return e
}

// accountName is the name of the account that a name leads to: carol is alice.
func accountName(user string) string {
	if user == "carol" {
		return "alice"
	}
	return user
}

// note notes what a worker says that was asked for it: only that is a proof.
func (tr *trial) note(w *fakeWorker, e pamwire.Event) {
	switch e.(type) {
	case pamwire.Proven:
		w.proven = w.proven || w.asked
	case pamwire.AccountValid:
		w.accountValid = w.accountValid || w.accountAsked
	case pamwire.Opened:
		w.opened = true
	case pamwire.Account:
		tr.exists[w.user] = true
	}
}

// anything is some event.
func (tr *trial) anything() pamwire.Event {
	user := []string{"alice", "bob", "root"}[tr.answer.next(3)]
	return []pamwire.Event{
		pamwire.Proven{User: user}, accountValid(user), opened(user), pamwire.Begun{}, pamwire.NoUser{}, accountOf(user),
		pamwire.Prompt{Style: capproto.EchoOff, Text: "?"}, pamwire.Prompt{Style: capproto.EchoOn, Text: "?"}, pamwire.Prompt{Style: capproto.Info, Text: "!"},
		pamwire.Refused{Code: capproto.CodeDenied, Text: "no"}, pamwire.Refused{Code: capproto.CodeAccount, Text: "no"}, pamwire.Failed{Text: "x"},
		pamwire.KeyAllowed{Options: optionsText(authkeys.Options{HasCommand: true})}, pamwire.KeyAllowed{Options: "nonsense"}, pamwire.KeyDenied{},
	}[tr.answer.next(15)]
}

// FuzzConversation drives conversations through verbs in any order, with workers
// that say anything, and checks the invariants of a capability: there is none
// without a proof, it is for the sender and the user who was proven, and it dies
// with its conversation; the host key signs key exchanges of this host with a fresh
// nonce, and one before the proof; a handover
// works once; there is nothing after the end, and no secret in a reply or the log.
func FuzzConversation(f *testing.F) {
	for _, script := range slices.Concat(seeds, tries) {
		f.Add(script, []byte{})
	}
	f.Fuzz(func(t *testing.T, script, answers []byte) {
		if len(script) <= 200 {
			run(t, script, answers)
		}
	})
}

// seeds are whole logins: in pairs, or threes, of a request and what it says.
var seeds = [][]byte{
	{0, 0, 0, 0, 2, 0, 4, 0, 2, 0, 5, 0, 2, 0, 6, 0, 6, 0},
	{1, 0, 0, 8, 0, 0, 9, 0, 10, 0, 0, 16, 0, 23, 1, 17, 0, 0, 5, 0, 2, 0, 6, 0},
	{1, 0, 0, 8, 0, 0, 9, 0, 15, 0, 2, 19, 0, 4, 19, 0, 7, 16, 0, 23, 1, 17, 0, 0, 5, 0, 2, 0, 6, 0}, // by GSSAPI
}

// tries are logins that go wrong: a token that is used twice, a capability before
// the session is open, another user than the one who was named, root and nobody by
// a password, carol by one proof of two.
var tries = [][]byte{
	{1, 0, 0, 8, 0, 0, 9, 0, 10, 0, 0, 16, 0, 23, 1, 17, 0, 0, 23, 1, 17, 0, 0, 5, 0, 2, 0, 6, 0},
	{0, 0, 0, 0, 2, 0, 4, 0, 2, 0, 5, 0, 6, 0},
	{0, 0, 0, 0, 2, 0, 4, 0, 2, 0, 6, 0},
	{1, 0, 0, 8, 0, 0, 15, 0, 0, 10, 3, 0, 10, 3, 0},
	{1, 0, 0, 8, 0, 0, 12, 4},
	{1, 0, 0, 8, 0, 0, 13, 4, 2, 0, 4, 0, 2, 0},
	{1, 0, 0, 8, 0, 0, 12, 5},
	{1, 0, 0, 8, 0, 0, 10, 5, 0},
	{1, 0, 0, 8, 0, 0, 10, 4, 0, 16, 0},
	{1, 0, 0, 8, 0, 0, 10, 3, 0, 12, 3, 16, 0},
	// Later key exchanges, with a new nonce and with an old one.
	{1, 0, 0, 8, 0, 0, 9, 0, 10, 0, 0, 1, 0, 8, 0, 0, 16, 0, 1, 0, 8, 0, 0, 1, 0, 8, 0, 1},
	{1, 0, 0, 23, 1, 0, 0, 8, 0, 1},
	// A MIC over another session, one without a token, tokens in pieces, a key in its place.
	{1, 0, 0, 8, 0, 0, 9, 0, 15, 0, 2, 19, 0, 4, 19, 0, 8, 16, 0},
	{1, 0, 0, 8, 0, 0, 15, 0, 2, 19, 0, 7},
	{1, 0, 0, 8, 0, 0, 15, 0, 2, 19, 0, 6, 19, 0, 6, 19, 0, 5, 10, 0, 0, 16, 0},
	{1, 0, 0, 8, 0, 0, 9, 4, 15, 4, 2, 19, 4, 4, 19, 4, 7, 16, 0},
}

func TestTheSeedsOfTheFuzzTargetLeadToACapability(t *testing.T) {
	for i, script := range seeds {
		if tr := run(t, script, nil); len(tr.caps) == 0 {
			t.Errorf("seed %d gives no capability: %s", i, tr.b.log.String())
		}
	}
}

// run makes a trial of a script, and of what workers say.
func run(t *testing.T, script, answers []byte) *trial {
	tr := &trial{t: t, b: newBench(host().gss), answer: &tape{answers}, caps: map[string]bool{}, exists: map[string]bool{}, principals: map[string]bool{}}
	tr.b.reply = tr.workerSays
	tr.b.accepts = tr.acceptorSays
	tr.b.more = func(w *fakeWorker) pamwire.Event {
		if tr.answer.next(3) == 0 {
			return nil
		}
		e := tr.anything()
		tr.note(w, e)
		return e
	}
	s := &tape{script}
	tr.dial(s)
	for len(s.b) > 0 {
		tr.step(s)
	}
	tr.finish()
	return tr
}

// dial begins one more conversation.
func (tr *trial) dial(s *tape) {
	n := s.next(6)
	f := &trialFront{proto: []string{"pam", "ssh"}[n%2], root: n >= 4, truth: &truth{}}
	uid := uint32(map[string]int{"pam": uidLogin, "ssh": uidSSH}[f.proto])
	peer := uid
	if f.root {
		peer = 0
	}
	f.front = tr.b.dial(tr.t, uid, peer, int32(100+len(tr.fronts)))
	tr.fronts = append(tr.fronts, f)
}

// step sends one request in one of the conversations.
func (tr *trial) step(s *tape) {
	op := s.next(24)
	if op == 23 && len(tr.fronts) < 4 {
		tr.dial(s)
		return
	}
	f := tr.fronts[len(tr.fronts)-1]
	if op >= 20 {
		f = tr.fronts[s.next(len(tr.fronts))]
		op = s.next(20)
	}
	m, valid := tr.request(f, op, s)
	r, ok := f.ask(m, modelFile(m.Verb, f.proto)...)
	if f.ended && ok {
		tr.t.Fatalf("after the end %s is answered by %v", m.Verb, r)
	}
	if !ok {
		f.ended = true
		return
	}
	tr.judge(f, m, r, valid)
}

// request makes a request. valid says that it is a proof of its own.
func (tr *trial) request(f *trialFront, op int, s *tape) (m capproto.Msg, valid bool) {
	user := []string{"alice", "alice", "alice", "carol", "root", "nobody"}[s.next(6)]
	switch op {
	case 0:
		m = startMsg(f.proto)
		if f.proto == "pam" {
			m.Add("user", user)
			if s.next(4) == 3 {
				m.Add("preauth", "yes")
			}
		}
	case 1:
		m = msg(capproto.VerbNonce)
		if s.next(2) == 1 {
			key := host().key.Marshal()
			key = key[:len(key)-s.next(2)]
			m = msg(capproto.VerbProve, "key", capproto.B64(key))
		}
	case 2, 3:
		m = msg(capproto.VerbRead)
	case 4:
		m = msg(capproto.VerbWrite, "data", typed)
	case 5:
		m = msg(capproto.VerbSession)
	case 6, 7:
		m = msg(capproto.VerbAuthInfo)
	case 8:
		x := exchange(f.nonce)
		switch s.next(3) {
		case 1: // another's nonce, or one that was given before
			x = exchange(tr.fronts[0].first)
		case 2:
			x.VS = "SSH-2.0-OpenSSH_10.0"
		}
		m = x.signMsg()
	case 9:
		m = msg(capproto.VerbUser, "name", user)
	case 10, 11: // a signature over the session id, or over another one
		sid := f.c.sessionID()
		if s.next(3) == 2 {
			sid = exchangeHash(77)
		} else {
			valid = sid != nil
		}
		m = keyMsg(user, sid)
	case 12:
		m = msg(capproto.VerbAuth, "user", user, "method", "password", "data", typed)
	case 13:
		m = msg(capproto.VerbAuth, "user", user, "method", "keyboard-interactive")
	case 14:
		m = keyMsg(user, exchangeHash(5))
		m.Attrs = m.Attrs[:len(m.Attrs)-1] // is it acceptable?
	case 15:
		m = msg(capproto.VerbAuth, "user", user, "method", []string{"none", "hostbased", "gssapi-with-mic"}[s.next(3)])
	case 16:
		m = msg(capproto.VerbTicket)
	case 17:
		token := strings.Repeat("A", 43)
		if n := len(tr.tokens); n > 0 {
			token = tr.tokens[s.next(n)].text
		}
		m = msg(capproto.VerbAttach, "ticket", token)
	case 18:
		m = msg(capproto.VerbAttr)
	default:
		switch n := s.next(9); n {
		case 4, 5:
			m = msg(capproto.VerbToken, "data", capproto.B64([]byte("token")))
		case 6:
			m = msg(capproto.VerbToken, "data", capproto.B64([]byte("tok")), "more", "yes")
		case 7, 8: // a MIC over this session, or over another one
			valid = n == 7 && f.c.sessionID() != nil
			sid := f.c.sessionID()
			if n == 8 {
				sid = exchangeHash(77)
			}
			m = msg(capproto.VerbMIC, "data", capproto.B64(micOf(sid, f.authed)))
		default:
			m = msg([]string{"start", "nonsense", "opened", "ok"}[n], "user", "root", "uid", "0")
		}
	}
	return m, valid
}

// micOf is the MIC of the tests: what it is over (RFC 4462, section 3.5) as it is.
func micOf(sid []byte, user string) []byte {
	return ssh.Marshal(struct {
		SID           []byte
		Type          byte
		User, Service string
		Method        string
	}{sid, 50, user, "ssh-connection", "gssapi-with-mic"})
}

// acceptorSays makes up what an acceptor says. It never says that a MIC is good that is
// not, as it is what factotum has to believe.
func (tr *trial) acceptorSays(_ *fakeWorker, r pamwire.Request) []pamwire.Event {
	n := tr.answer.next(12)
	switch r := r.(type) {
	case pamwire.GSSToken:
		if n < 8 {
			return []pamwire.Event{pamwire.GSSContinue{Token: []byte("answer"), Done: n != 7}}
		}
	case pamwire.GSSMIC:
		if n < 8 && bytes.Equal(r.Message, r.MIC) {
			return []pamwire.Event{pamwire.GSSProven{Principal: []string{"alice", "alice", "root", "carol", "nobody"}[n%5] + "@EXAMPLE.ORG", Cache: []byte("cache")}}
		}
	}
	return [][]pamwire.Event{nil, {pamwire.Refused{Code: capproto.CodeDenied, Text: "no"}}, {pamwire.Proven{User: "alice"}}, {accountValid("alice")}}[n%4]
}

// sessionID is the session id of a conversation by ssh. The conversation waits for
// a request meanwhile.
func (c *conversation) sessionID() []byte {
	if l, ok := c.proto.(*sshProto); ok {
		return l.sessionID
	}
	return nil
}

// judge checks a reply against the truth.
func (tr *trial) judge(f *trialFront, m, r capproto.Msg, valid bool) {
	b, err := r.Encode()
	if err != nil {
		tr.t.Fatalf("%s is answered by what cannot be sent: %v", m.Verb, err)
	}
	if strings.Contains(string(b), typed) || strings.Contains(string(b), wrongPassword) {
		tr.t.Fatalf("the reply to %s has what was typed: %v", m.Verb, r)
	}
	if r.Get("cap") != "" && m.Verb != capproto.VerbAuthInfo || r.Get("ticket") != "" && m.Verb != capproto.VerbTicket || r.Get("sig") != "" && m.Verb != capproto.VerbSign && m.Verb != capproto.VerbProve ||
		r.Get("nonce") != "" && m.Verb != capproto.VerbNonce && m.Verb != capproto.VerbStart {
		tr.t.Fatalf("the reply to %s has a secret: %v", m.Verb, r)
	}
	if m.Verb == capproto.VerbUser || m.Verb == capproto.VerbAuth {
		if name := m.Get("user") + m.Get("name"); f.authed == "" {
			f.authed = name
		} else if f.authed != name && r.Get("code") != capproto.CodeProtocol {
			tr.t.Fatalf("%s became %s: %v", f.authed, name, r)
		}
	}
	if r.Verb == capproto.VerbError {
		return
	}
	switch m.Verb {
	case capproto.VerbNonce:
		f.fresh, f.first = f.nonce, firstNonce(f.first, f.nonce)
	case capproto.VerbStart:
		f.fresh, f.first = f.nonce, firstNonce(f.first, f.nonce)
		f.preauth = m.Get("preauth") == "yes"
		if f.preauth && (!f.root || f.asked > 1) {
			tr.t.Fatal("a password was skipped that must not be")
		}
		f.truth.user = m.Get("user")
	case capproto.VerbSign:
		f.signed(m)
	case capproto.VerbProve:
		f.provedHost(r)
	case capproto.VerbUser, capproto.VerbAuth:
		f.truth.user = f.authed
		if r.Verb != capproto.VerbOK && valid {
			f.proofs++
		}
		if r.Verb != capproto.VerbOK && m.Get("method") == "publickey" && !valid {
			tr.t.Fatalf("a wrong signature is answered by %v", r)
		}
	case capproto.VerbMIC:
		if !valid || len(tr.principals) == 0 {
			tr.t.Fatalf("a wrong MIC is answered by %v", r)
		}
		f.proofs++
	case capproto.VerbTicket:
		if f.tokens++; f.tokens > 1 || !f.done {
			tr.t.Fatalf("handover token %d", f.tokens)
		}
		tr.tokens = append(tr.tokens, &givenToken{r.Get("ticket"), 0, f.truth})
	case capproto.VerbAttach:
		for _, g := range tr.tokens {
			if g.text == m.Get("ticket") {
				if g.used++; g.used > 1 {
					tr.t.Fatal("a handover token worked twice")
				}
				f.attach, f.truth = g, g.truth
			}
		}
		if f.attach == nil {
			tr.t.Fatal("attached by no token")
		}
	case capproto.VerbAuthInfo:
		tr.capability(f, r)
	}
	if w, ok := f.c.worker.(*fakeWorker); ok {
		f.truth.last = w
	}
	if r.Verb == capproto.VerbDone && !f.done && f.attach == nil {
		f.done = true
		tr.proven(f)
	}
}

func firstNonce(first, nonce []byte) []byte {
	if first == nil {
		return nonce
	}
	return first
}

// signed checks what a host key has signed: a key exchange of this host, with a
// nonce that factotum gave to this conversation and that is new.
func (f *trialFront) signed(m capproto.Msg) {
	b, err := capproto.UnB64(m.Get("transcript"))
	if err != nil {
		f.t.Fatal(err)
	}
	var x transcript
	if err := ssh.Unmarshal(b, &x); err != nil {
		f.t.Fatalf("what is not a transcript was signed: %v", err)
	}
	if f.fresh == nil || !bytes.Equal(x.IS, kexInit(f.fresh)) || x.VS != capproto.SSHVersion || !bytes.Equal(x.KS, host().key.Marshal()) {
		f.t.Fatalf("the host key signed %+v, the nonce is %x", x, f.fresh)
	}
	f.fresh = nil
	if !f.done {
		if f.hashes++; f.hashes > 1 {
			f.t.Fatal("a second key exchange was signed before the proof")
		}
	}
}

// provedHost checks what a host key has signed for a client that is to learn it: the
// session id of this conversation, after the user was proven.
func (f *trialFront) provedHost(r capproto.Msg) {
	if !f.done {
		f.t.Fatal("a host key was proven before the user")
	}
	sig := new(ssh.Signature)
	b, err := capproto.UnB64(r.Get("sig"))
	if err == nil {
		err = ssh.Unmarshal(b, sig)
	}
	if err == nil {
		err = host().key.Verify(hostKeyProof(f.sid, host().key.Marshal()), sig)
	}
	if err != nil {
		f.t.Fatalf("the host key's proof: %v", err)
	}
}

// hostKeyProof is what section 2.5 of OpenSSH's PROTOCOL has signed.
func hostKeyProof(sid, key []byte) []byte {
	return ssh.Marshal(struct {
		Name     string
		SID, Key []byte
	}{"hostkeys-prove-00@openssh.com", sid, key})
}

// proven checks that factotum is convinced by a proof.
func (tr *trial) proven(f *trialFront) {
	w := f.truth.last
	if w == nil {
		tr.t.Fatal("proven without a worker")
	}
	if !w.accountValid {
		tr.t.Fatal("proven without a word on the account")
	}
	if f.proofs == 0 && !w.proven && !f.preauth {
		tr.t.Fatal("proven without a proof")
	}
	if f.proto == "ssh" {
		if !tr.exists[f.truth.user] {
			tr.t.Fatalf("%s was let in and has no account", f.truth.user)
		}
		if l := f.c.proto.(*sshProto); f.truth.user == "carol" && !slices.Equal(l.methods.Done(), []string{"publickey", "password"}) {
			tr.t.Fatalf("carol was let in by %v", l.methods.Done())
		} else if l.isRoot() && l.conf.PermitRootLogin != sshdconf.RootYes && !slices.Contains(l.methods.Done(), "publickey") && !slices.Contains(l.methods.Done(), "gssapi-with-mic") {
			tr.t.Fatal("root was let in by a password")
		}
	}
}

// capability checks one that was given.
func (tr *trial) capability(f *trialFront, r capproto.Msg) {
	c, err := capproto.Parse(r.Get("cap"))
	if err != nil {
		tr.t.Fatal(err)
	}
	w, _ := f.c.worker.(*fakeWorker)
	switch {
	case w == nil || !w.opened || !w.accountValid || w.session == nil:
		tr.t.Fatal("a capability without a session")
	case !f.done && f.attach == nil:
		tr.t.Fatal("a capability without a proof")
	case c.Grant.From != f.cred.Uid || c.Grant.To != uidOf(r.Get("user")) || fmt.Sprint(c.Grant.Groups) != fmt.Sprint(opened("").Groups):
		tr.t.Fatalf("a capability for somebody else: %v", c)
	case f.proto == "ssh" && r.Get("user") != accountName(f.truth.user):
		tr.t.Fatalf("%s got the session of %s", f.truth.user, r.Get("user"))
	case !tr.b.hash.has(c.Hash()) || tr.caps[r.Get("cap")]:
		tr.t.Fatal("a capability that is not in caphash, or was there before")
	}
	tr.caps[r.Get("cap")] = true
	f.given = append(f.given, c.Hash())
}

// finish ends the conversations, and checks that nothing is left of them.
func (tr *trial) finish() {
	for i, f := range tr.fronts {
		f.hangUp()
		select {
		case m := <-f.w.out:
			if m.Get("code") == "" {
				tr.t.Fatalf("unasked: %v", m)
			}
		default:
		}
		for _, h := range f.given {
			if tr.b.hash.has(h) {
				tr.t.Fatal("a capability outlives its conversation")
			}
		}
		// Those of the others do not die with it.
		for _, g := range tr.fronts[i+1:] {
			for _, h := range g.given {
				if !g.ended && !tr.b.hash.has(h) {
					select {
					case <-g.front.ended:
					default:
						tr.t.Fatal("a capability dies with another conversation")
					}
				}
			}
		}
	}
	if n, made := tr.b.hash.count(); n != 0 || made != len(tr.caps) || tr.b.caps.count() != 0 {
		tr.t.Fatalf("%d of %d capabilities are left; %d were given", n, made, len(tr.caps))
	}
	tr.b.handovers.mu.Lock()
	if n := len(tr.b.handovers.m); n != 0 {
		tr.t.Fatalf("%d handovers are left", n)
	}
	tr.b.handovers.mu.Unlock()
	sessions := 0
	for _, w := range tr.b.workers {
		w.mu.Lock()
		if w.session != nil {
			sessions++
			w.session.end()
		} else if !w.abandoned {
			tr.t.Fatal("a worker is left that nobody needs")
		}
		w.mu.Unlock()
	}
	if open, all := tr.b.sessions.list(); all != 0 || len(open) != 0 {
		tr.t.Fatalf("%d sessions are counted when all %d are over", all, sessions)
	}
	if n := tr.b.stats.Of(status.Panicked); n != 0 {
		tr.t.Fatalf("a fault: %s", tr.b.log.String())
	}
	if log := tr.b.log.String(); strings.Contains(log, typed) {
		tr.t.Fatal("the log has what was typed")
	}
}
