package daemon

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/internal/becomerecord"
)

func TestALoginBySSHIsBoundToTheUserProcess(t *testing.T) {
	b := newBench(host().gen)
	var bound []becomerecord.Record
	b.caps.bind = func(h capproto.Hash, r becomerecord.Record) error {
		bound = append(bound, r)
		_, err := b.hash.Write(h[:])
		return err
	}
	f := admitBySSH(t, b, "alice")
	f.want("ok", msg("nonce"))
	f.want("ok", f.signMsg())
	s := b.dial(t, uidSSH, uidSSH, 201)
	s.want("ok", msg("attach", "ticket", f.want("ok", msg("ticket")).Get("ticket")))
	s.want("ok", msg("session"))
	s.want("done", msg("read"))
	m := s.want("ok", msg("authinfo"))
	if len(bound) != 1 {
		t.Fatalf("%d capabilities are bound", len(bound))
	}
	r := bound[0]
	if _, err := r.Encode(); err != nil {
		t.Fatal(err)
	}
	c, err := capproto.Parse(m.Get("cap"))
	if err != nil || r.From != c.Grant.From || r.UID != c.Grant.To || !slices.Equal(r.Groups, c.Grant.Groups) {
		t.Errorf("%v: %+v is not of the capability", err, r)
	}
	if r.Bound.Path != b.gen.conf.UserProgram || !slices.Equal(r.Bound.Argv, []string{"sshfront: alice", "user"}) ||
		r.Bound.Dir != "/" || !slices.Equal(r.Bound.FDs, []uint32{0, 1, 2, 3, 4, 5}) || r.Bound.Root != nil {
		t.Errorf("it executes %+v", r.Bound)
	}
	login := ""
	for _, kv := range r.Bound.Env {
		if v, ok := strings.CutPrefix(kv, capproto.LoginVariable+"="); ok {
			login = v
		}
	}
	a, err := capproto.ParseLogin(login)
	if err != nil {
		t.Fatal(err)
	}
	if a.User != "alice" || capproto.B64(a.Settings) != m.Get("settings") || capproto.B64(a.Options) != m.Get("options") || a.Remote != m.Get("remote") || a.Cap != "" {
		t.Errorf("sealed in it: %+v", a)
	}
	for n, want := range map[int]*[2]uint64{unix.RLIMIT_NOFILE: a.NoFile, unix.RLIMIT_NPROC: a.NProc} {
		if l, ok := r.Bound.Limits[n]; ok != (want != nil) || ok && l != (becomerecord.Limit{Soft: want[0], Hard: want[1]}) {
			t.Errorf("limit %d is %v, not %v", n, l, want)
		}
	}
	if a.Umask >= 0 && r.Bound.Umask != uint32(a.Umask) || a.Umask < 0 && r.Bound.Umask != 0o22 {
		t.Errorf("umask %#o, not %#o", r.Bound.Umask, a.Umask)
	}
}
