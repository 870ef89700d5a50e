package daemon

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"p9auth/capproto"
	"p9auth/factotum/internal/pamwire"
	"p9auth/internal/authkeys"
	"p9auth/internal/becomerecord"
)

func TestShellsThatCountAsRestricted(t *testing.T) {
	defer func(s string) { shells = s }(shells)
	shells = filepath.Join(t.TempDir(), "shells")
	if !restrictedShell("/bin/sh") {
		t.Error("without shells(5)")
	}
	if err := os.WriteFile(shells, []byte("# valid login shells\n/bin/sh\n/bin/bash\n/bin/rbash\n/usr/bin/rc\n/usr/bin/git-shell\n/usr/bin/zsh  \n/bin/rksh93\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for shell, want := range map[string]bool{
		"": false, "/bin/sh": false, "/bin/bash": false, "/usr/bin/zsh": false, "/usr/bin/rc": false,
		"/bin/rbash": true, "/usr/bin/git-shell": true, "/usr/sbin/nologin": true, "/opt/menu": true, "# valid login shells": true, "bin/sh": true,
	} {
		if got := restrictedShell(shell); got != want {
			t.Errorf("%q: %v, want %v", shell, got, want)
		}
	}
}

// TestRestrictedLoginsThatTheDeviceCannotBind has a backend that binds nothing, with
// and without RequireBoundGrants, and one that binds all.
func TestRestrictedLoginsThatTheDeviceCannotBind(t *testing.T) {
	free, _, err := authkeys.ParseOptions("")
	must(err)
	with := func(options string) *authkeys.Options {
		o, _, err := authkeys.ParseOptions(options)
		must(err)
		return &o
	}
	root := &pamwire.Root{Path: "/srv/jail", Dev: 1, Ino: 2}
	for _, c := range []struct {
		name, conf string
		options    *authkeys.Options
		shell      string
		restricted string // what the log says, or "" for a login that is not restricted
		always     bool   // refused whatever RequireBoundGrants is
	}{
		{"nothing", "", &free, "/bin/sh", "", false},
		{"an expiry, an address", "", with(`expiry-time="20990101",from="*"`), "/bin/sh", "", false},
		{"settings of forwarding", "AllowTcpForwarding no\nX11Forwarding no\n", &free, "/bin/sh", "", false},
		{"a command", "", with(`command="date"`), "/bin/sh", "the command of the key", false},
		{"an empty command", "", with(`command=""`), "/bin/sh", "the command of the key", false},
		{"restrict", "", with(`restrict`), "/bin/sh", "the options of the key", false},
		{"no-pty", "", with(`no-pty`), "/bin/sh", "the options of the key", false},
		{"permitopen", "", with(`permitopen="h:1"`), "/bin/sh", "the options of the key", false},
		{"ForceCommand", "Match User alice\nForceCommand date\n", &free, "/bin/sh", "ForceCommand", false},
		{"MaxSessions", "MaxSessions 0\n", &free, "/bin/sh", "MaxSessions 0", false},
		{"rbash", "", &free, "/bin/rbash", "the login shell /bin/rbash", false},
		{"a root", "ChrootDirectory /srv/jail\n", &free, "/bin/sh", "ChrootDirectory", true},
	} {
		for backend, require := range map[string]bool{"no": false, "yes": true, "bound": true} {
			gen := newGen(c.conf)
			gen.conf.RequireBoundGrants = require
			b := newBench(gen)
			if backend == "bound" {
				b.caps.bind = func(h capproto.Hash, _ becomerecord.Record) error { _, err := b.hash.Write(h[:]); return err }
			}
			b.reply = func(w *fakeWorker, r pamwire.Request) []pamwire.Event {
				switch r := r.(type) {
				case pamwire.KeyQuery:
					return []pamwire.Event{pamwire.KeyAllowed{Options: optionsText(*c.options)}}
				case pamwire.OpenSession:
					o := opened("alice")
					if o.Shell = c.shell; r.Root != "" {
						o.Root = root
					}
					return []pamwire.Event{o}
				}
				return obliging(w, r)
			}
			f := admitBySSH(t, b, "alice")
			s := b.dial(t, uidSSH, uidSSH, 201)
			s.want("ok", msg("attach", "ticket", f.want("ok", msg("ticket")).Get("ticket")))
			s.want("ok", msg("session"))
			refused := backend != "bound" && c.restricted != "" && (require || c.always)
			if !refused {
				s.want("done", msg("read"))
				s.want("ok", msg("authinfo"))
				continue
			}
			if m := s.want("error", msg("read")); m.Get("code") != capproto.CodeAccount {
				t.Errorf("%s: %v", c.name, m)
			}
			if !strings.Contains(b.log.String(), "cannot bind the login to "+c.restricted) {
				t.Errorf("%s: the log has %s", c.name, b.log.String())
			}
		}
	}
}

// TestARestrictedShellAtAConsoleThatTheDeviceCannotBind is refused, another is not.
func TestARestrictedShellAtAConsoleThatTheDeviceCannotBind(t *testing.T) {
	for shell, refused := range map[string]bool{"/bin/sh": false, "": false, "/bin/rbash": true, "/opt/menu": true} {
		gen := newGen("")
		gen.conf.RequireBoundGrants = true
		b := newBench(gen)
		b.reply = func(w *fakeWorker, r pamwire.Request) []pamwire.Event {
			if _, ok := r.(pamwire.OpenSession); ok {
				o := opened("alice")
				o.Shell = shell
				return []pamwire.Event{o}
			}
			return obliging(w, r)
		}
		f := sessionByPAM(t, b)
		if refused {
			f.want("error", msg("read"))
			continue
		}
		f.want("done", msg("read"))
		f.want("ok", msg("authinfo"))
	}
}

// TestALoginIntoARootDirectoryHasItInItsGrant and terminals, as far as it may have any.
func TestALoginIntoARootDirectoryHasItInItsGrant(t *testing.T) {
	for conf, ptys := range map[string]uint32{
		"": 4, "MaxSessions 2\n": 2, "PermitTTY no\n": 0, "ForceCommand internal-sftp -l INFO\n": 1, "ForceCommand date\n": 4,
	} {
		b := newBench(newGen("Match User alice\nChrootDirectory /srv/%u\n" + conf))
		var records []becomerecord.Record
		b.caps.bind = func(h capproto.Hash, r becomerecord.Record) error {
			records = append(records, r)
			_, err := b.hash.Write(h[:])
			return err
		}
		b.reply = func(w *fakeWorker, r pamwire.Request) []pamwire.Event {
			if r, ok := r.(pamwire.OpenSession); ok {
				if r.Root != "/srv/%u" {
					t.Errorf("the worker is asked for %q", r.Root)
				}
				o := opened("alice")
				o.Root = &pamwire.Root{Path: "/srv/alice", Dev: 5, Ino: 6}
				return []pamwire.Event{o}
			}
			return obliging(w, r)
		}
		f := admitBySSH(t, b, "alice")
		s := b.dial(t, uidSSH, uidSSH, 201)
		s.want("ok", msg("attach", "ticket", f.want("ok", msg("ticket")).Get("ticket")))
		s.want("ok", msg("session"))
		s.want("done", msg("read"))
		m := s.want("ok", msg("authinfo"))
		if len(records) != 1 || *records[0].Bound.Root != (becomerecord.Root{Path: "/srv/alice", Dev: 5, Ino: 6, PTYs: ptys}) {
			t.Errorf("%q: the record is %+v", conf, records[0].Bound.Root)
		}
		if _, err := records[0].Encode(); err != nil || m.Get("root") != "/srv/alice" {
			t.Errorf("%v, %v", err, m)
		}
		if !slices.ContainsFunc(records[0].Bound.Env, func(kv string) bool { return strings.Contains(kv, "root=/srv/alice") }) {
			t.Errorf("%q", records[0].Bound.Env)
		}
	}
	// A worker that opens the session elsewhere, or in a root that nobody asked for.
	for conf, r := range map[string]*pamwire.Root{"ChrootDirectory /srv\n": nil, "": {Path: "/srv", Dev: 5, Ino: 6}} {
		b := newBench(newGen(conf))
		b.reply = func(w *fakeWorker, q pamwire.Request) []pamwire.Event {
			if _, ok := q.(pamwire.OpenSession); ok {
				o := opened("alice")
				o.Root = r
				return []pamwire.Event{o}
			}
			return obliging(w, q)
		}
		f := admitBySSH(t, b, "alice")
		s := b.dial(t, uidSSH, uidSSH, 201)
		s.want("ok", msg("attach", "ticket", f.want("ok", msg("ticket")).Get("ticket")))
		s.want("ok", msg("session"))
		if m := s.want("error", msg("read")); m.Get("code") != capproto.CodeInternal {
			t.Errorf("%q: %v", conf, m)
		}
	}
}

// TestWhatModulesSetOfTheProcessIsInTheGrantOrTheLoginIsRefused with a backend that
// binds, and with one that does not. A session keyring alone keeps nobody out.
func TestWhatModulesSetOfTheProcessIsInTheGrantOrTheLoginIsRefused(t *testing.T) {
	for _, c := range []struct {
		name    string
		set     pamwire.Process
		want    becomerecord.Process
		refused bool // with the device
	}{
		{"nothing", pamwire.Process{}, becomerecord.Process{}, false},
		{"a keyring", pamwire.Process{Keyring: "_ses.1"}, becomerecord.Process{Keyring: "_ses.1"}, false},
		{"a context", pamwire.Process{Context: "a:b:c"}, becomerecord.Process{Context: "a:b:c"}, true},
		{"a mount namespace", pamwire.Process{Mounts: &pamwire.Mounts{Dev: 4, Ino: 5}}, becomerecord.Process{Mounts: &becomerecord.Mounts{Path: "/proc/4711/ns/mnt", Dev: 4, Ino: 5}}, true},
		{"capabilities", pamwire.Process{Inheritable: 6, Ambient: 2}, becomerecord.Process{Inheritable: 6, Ambient: 2}, true},
		{"audit", pamwire.Process{TTYAudit: 3}, becomerecord.Process{TTYAudit: 3}, true},
	} {
		for _, binds := range []bool{true, false} {
			b := newBench(newGen(""))
			var records []becomerecord.Record
			if binds {
				b.caps.bind = func(h capproto.Hash, r becomerecord.Record) error {
					records = append(records, r)
					_, err := b.hash.Write(h[:])
					return err
				}
			}
			b.reply = func(w *fakeWorker, r pamwire.Request) []pamwire.Event {
				if _, ok := r.(pamwire.OpenSession); ok {
					o := opened("alice")
					o.Process = c.set
					return []pamwire.Event{o}
				}
				return obliging(w, r)
			}
			f := sessionByPAM(t, b)
			if !binds && c.refused {
				if m := f.want("error", msg("read")); m.Get("code") != capproto.CodeAccount || !strings.Contains(b.log.String(), "cannot bind the login to what PAM's modules have set") {
					t.Errorf("%s: %v; the log has %s", c.name, m, b.log.String())
				}
				continue
			}
			f.want("done", msg("read"))
			f.want("ok", msg("authinfo"))
			if binds && (len(records) != 1 || !reflect.DeepEqual(records[0].Bound.Process, c.want)) {
				t.Errorf("%s: %+v", c.name, records)
			}
		}
	}
}
