package authkeys

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"golang.org/x/crypto/ssh"

	"p9auth/internal/sshdconf"
	"p9auth/internal/sshkey"
)

const (
	keyA = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKFyz3WSBxBgLYVU0pNm0/lPyM6hZHFPNJuQ1bnUpxW7"
	skA  = "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAIKFyz3WSBxBgLYVU0pNm0/lPyM6hZHFPNJuQ1bnUpxW7AAAABHNzaDo="
)

func plain() Options {
	return Options{AgentForwarding: true, PortForwarding: true, X11Forwarding: true, PTY: true, UserRC: true, Tunnel: -1}
}

func with(f func(o *Options)) Options {
	o := plain()
	f(&o)
	return o
}

func TestEveryOptionIsRead(t *testing.T) {
	for opts, want := range map[string]Options{
		"":                         plain(),
		"no-pty":                   with(func(o *Options) { o.PTY = false }),
		"NO-PTY,No-X11-Forwarding": with(func(o *Options) { o.PTY, o.X11Forwarding = false, false }),
		"restrict":                 {Tunnel: -1},
		"restrict,pty,user-rc":     {Tunnel: -1, PTY: true, UserRC: true},
		"pty,restrict":             {Tunnel: -1},
		"no-agent-forwarding":      with(func(o *Options) { o.AgentForwarding = false }),
		"no-port-forwarding":       with(func(o *Options) { o.PortForwarding = false }),
		"no-user-rc":               with(func(o *Options) { o.UserRC = false }),
		"no-touch-required":        with(func(o *Options) { o.NoTouchRequired = true }),
		"verify-required":          with(func(o *Options) { o.VerifyRequired = true }),
		"cert-authority":           with(func(o *Options) { o.CertAuthority = true }),
		`command="a \"b\" \c"`:     with(func(o *Options) { o.HasCommand, o.Command = true, `a "b" \c` }),
		`command=""`:               with(func(o *Options) { o.HasCommand = true }),
		`environment="A=b c"`:      with(func(o *Options) { o.Environment = []string{"A=b c"} }),
		`environment="A=1",environment="A=2",environment="AB=3"`: with(func(o *Options) { o.Environment = []string{"A=1", "AB=3"} }),
		`from="*.example.org,!192.0.2.1"`:                        with(func(o *Options) { o.From = "*.example.org,!192.0.2.1" }),
		`cert-authority,principals="a,b"`:                        with(func(o *Options) { o.CertAuthority, o.Principals = true, []string{"a", "b"} }),
		`permitopen="[::1]:80",permitopen="h:*"`: with(func(o *Options) {
			o.PermitOpen = []sshdconf.HostPort{{Host: "::1", Port: 80}, {Host: "h"}}
		}),
		`permitlisten="8080",permitlisten="localhost:1"`: with(func(o *Options) {
			o.PermitListen = []sshdconf.HostPort{{Host: "*", Port: 8080}, {Host: "localhost", Port: 1}}
		}),
		`tunnel="3"`:                  with(func(o *Options) { o.Tunnel = 3 }),
		`tunnel="any"`:                with(func(o *Options) { o.Tunnel = AnyTunnel }),
		`expiry-time="20300102"`:      with(func(o *Options) { o.ValidUntil = time.Date(2030, 1, 2, 0, 0, 0, 0, time.Local) }),
		`expiry-time="203001020304Z"`: with(func(o *Options) { o.ValidUntil = time.Date(2030, 1, 2, 3, 4, 0, 0, time.UTC) }),
		`expiry-time="20300102030405utc",expiry-time="20310101Z"`: with(func(o *Options) {
			o.ValidUntil = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
		}),
	} {
		line := strings.TrimLeft(opts+" "+keyA+" a comment", " ")
		e, err := ParseLine(line)
		if err != nil {
			t.Errorf("%s: %v", opts, err)
			continue
		}
		if !reflect.DeepEqual(e.Options, want) {
			t.Errorf("%s: got %+v", opts, e.Options)
		}
		if e.Comment != "a comment" || !strings.HasPrefix(line[strings.Index(line, "ssh-ed"):], e.Key.Type+" "+base64.StdEncoding.EncodeToString(e.Key.Blob)) {
			t.Errorf("%s: key %v, comment %q", opts, e.Key, e.Comment)
		}
	}
}

func TestALineThatIsNotUnderstoodIsAnError(t *testing.T) {
	cert := "ssh-ed25519-cert-v01@openssh.com AAAA"
	for _, line := range []string{
		"ptyx " + keyA, "no-restrict " + keyA, "no-cert-authority " + keyA, "frobnicate " + keyA, `frobnicate="x" ` + keyA,
		`command=x ` + keyA, `command="x ` + keyA, `command="x"y ` + keyA, `command="x",command="y" ` + keyA, "command " + keyA,
		`pty="yes" ` + keyA, `="yes" ` + keyA,
		`from="" ` + keyA, `from="192.0.2.0/33" ` + keyA, `from="a",from="b" ` + keyA,
		`environment="A" ` + keyA, `environment="=x" ` + keyA, `environment="A-B=x" ` + keyA,
		`expiry-time="2030" ` + keyA, `expiry-time="20301301" ` + keyA, `expiry-time="20300230" ` + keyA, `expiry-time="19600101" ` + keyA,
		`permitopen="80" ` + keyA, `permitopen="h:0" ` + keyA, `permitlisten="h:x" ` + keyA, `permitopen="::1:80" ` + keyA,
		`tunnel="-1" ` + keyA, `tunnel="x" ` + keyA, `principals="a",principals="b" ` + keyA,
		"ssh-ed25519", "ssh-ed25519 !!!!", strings.Replace(keyA, "ssh-ed25519", "ssh-rsa", 1), keyA[:40], cert, "pty", "x y z",
		strings.Replace(keyA, "ssh-ed25519 ", "ssh-ed25519\v", 1),
	} {
		if e, err := ParseLine(line); err == nil {
			t.Errorf("%q gave %+v", line, e)
		}
	}
}

func TestReadSkipsBadLinesAndReportsThem(t *testing.T) {
	file := "\n# comment\n  \t" + keyA + "\r\nbogus " + keyA + "\n" + strings.Repeat("x", MaxLine) + " " + keyA + "\n" +
		"restrict " + skA + "\nnul\x00 " + keyA + "\nno-pty " + keyA
	es, bad, err := collect(Entries(strings.NewReader(file)))
	if err != nil {
		t.Fatal(err)
	}
	if len(es) != 3 || es[0].Line != 3 || es[1].Line != 6 || es[2].Line != 8 || es[2].Options.PTY || es[1].Key.Type != sshkey.SKED25519 {
		t.Errorf("entries %+v", es)
	}
	var le *LineError
	if len(bad) != 3 || !errors.As(bad[1], &le) || le.Line != 5 {
		t.Errorf("complaints %v", bad)
	}
}

// collect has all that an iterator yields: the entries, those lines that are none, and
// the last error.
func collect[T any](seq iter.Seq2[T, error]) (entries []T, bad []error, err error) {
	for e, why := range seq {
		switch {
		case why == nil:
			entries = append(entries, e)
		case errors.As(why, new(*LineError)):
			bad = append(bad, why)
		default:
			err = why
		}
	}
	return entries, bad, err
}

func TestALongFileIsReadAsAStream(t *testing.T) {
	const n = 50000
	file := strings.Repeat(keyA+"\n", n)
	es, bad, err := collect(Entries(strings.NewReader(file)))
	if len(es) != n || es[n-1].Line != n || bad != nil || err != nil {
		t.Errorf("%d entries, %v, %v", len(es), bad, err)
	}
	read := 0
	for range Entries(io.TeeReader(strings.NewReader(file), writer(func(b []byte) { read += len(b) }))) {
		break
	}
	if read > 1<<16 {
		t.Errorf("for the first line %d bytes were read", read)
	}
}

type writer func(b []byte)

func (w writer) Write(b []byte) (int, error) { w(b); return len(b), nil }

func TestWhatComesBeforeAnErrorCounts(t *testing.T) {
	broken := errors.New("the disk is broken")
	es, bad, err := collect(Entries(io.MultiReader(strings.NewReader(keyA+"\n"+keyA[:20]), iotest.ErrReader(broken))))
	if len(es) != 1 || len(bad) != 1 || err != broken {
		t.Errorf("%d entries, %v, %v", len(es), bad, err)
	}
}

func TestSshKeygenFindsTheSameKeys(t *testing.T) {
	if testing.Short() {
		t.Skip("asks ssh-keygen several hundred times")
	}
	if _, err := exec.LookPath("ssh-keygen"); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	var file bytes.Buffer
	opts := []string{"", "restrict,pty ", `command="echo \"a b\" # x",no-pty` + "\t", `from="10.0.0.0/8,*.x" `, "  "}
	for i, typ := range []string{"ed25519", "ecdsa", "rsa", "ed25519", "ecdsa"} {
		name := filepath.Join(dir, fmt.Sprint(i))
		if out, err := exec.Command("ssh-keygen", "-q", "-t", typ, "-N", "", "-C", "c "+typ, "-f", name).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		b, err := os.ReadFile(name + ".pub")
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&file, "# %d\n%s%s\n", i, opts[i], b)
	}
	name := filepath.Join(dir, "authorized_keys")
	if err := os.WriteFile(name, file.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("ssh-keygen", "-l", "-f", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	es, bad, err := collect(Entries(&file))
	if err != nil || bad != nil {
		t.Fatal(err, bad)
	}
	var got, want []string
	for _, e := range es {
		got = append(got, e.Key.Fingerprint("sha256"))
	}
	for l := range strings.Lines(string(out)) {
		want = append(want, strings.Fields(l)[1])
	}
	if len(want) != 5 || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, ssh-keygen has %v", got, want)
	}
}

func TestPrincipalsMayHaveOptions(t *testing.T) {
	ps, bad, err := collect(Principals(strings.NewReader("# c\nalice # c\n\n  restrict,command=\"a b\"  bob\t\nno-pty x carol\nbogus dave\n")))
	if err != nil || len(ps) != 2 || ps[0].Name != "alice" || !ps[0].Options.PTY || ps[0].Line != 2 ||
		ps[1].Name != "bob" || ps[1].Options.Command != "a b" || ps[1].Options.PTY || len(bad) != 2 {
		t.Errorf("got %+v, %v, %v", ps, bad, err)
	}
}

func TestOptionsRefuseTheWrongClient(t *testing.T) {
	now := time.Date(2030, 6, 1, 12, 0, 0, 0, time.UTC)
	c := Client{Host: "a.example.org", Addr: netip.MustParseAddr("192.0.2.7"), Now: now}
	for opts, ok := range map[string]bool{
		"":                              true,
		`from="192.0.2.0/24"`:           true,
		`from="*.example.org"`:          true,
		`from="*,!192.0.2.7"`:           false,
		`from="*,!a.example.org"`:       false,
		`from="198.51.100.0/24"`:        false,
		`expiry-time="20300601120000Z"`: true,
		`expiry-time="20300601115959Z"`: false,
		`principals="alice"`:            false,
		"cert-authority":                false,
	} {
		o, _, err := ParseOptions(opts)
		if err != nil {
			t.Fatal(err)
		}
		if err := o.Check(c, false); (err == nil) != ok {
			t.Errorf("%s: %v", opts, err)
		}
	}
	o, _, _ := ParseOptions("cert-authority")
	if err := o.Check(c, true); err != nil {
		t.Errorf("a CA is refused where one may stand: %v", err)
	}
}

func TestTheOptionsOfTwoKeysHoldTogether(t *testing.T) {
	for _, c := range []struct{ a, b, want string }{
		{"", "", ""},
		{"restrict", "", "restrict"},
		{"", "restrict", "restrict"},
		{"restrict,pty", "no-port-forwarding", "restrict,pty"},
		{"restrict,pty", "restrict,port-forwarding", "restrict"},
		{`command="a"`, "", `command="a"`},
		{"", `command="a"`, `command="a"`},
		{`command="a"`, `command="a",no-pty`, `command="a",no-pty`},
		{`command=""`, "", `command=""`},
		{`permitopen="a:1"`, `permitopen="b:2"`, `permitopen="a:1"`},
		{"", `permitopen="b:2",permitlisten="3"`, `permitopen="b:2",permitlisten="3"`},
		{`expiry-time="20300101Z"`, `expiry-time="20290101Z"`, `expiry-time="20290101Z"`},
		{"", `expiry-time="20290101Z"`, `expiry-time="20290101Z"`},
		{`environment="A=1"`, `environment="B=2"`, `environment="A=1"`},
		{"", `tunnel="3"`, `tunnel="3"`},
		{"no-touch-required", "", ""},
		{"no-touch-required", "no-touch-required", "no-touch-required"},
		{"", "verify-required", "verify-required"},
		{`from="a"`, "", `from="a"`},
	} {
		parse := func(s string) Options {
			o, _, err := ParseOptions(s)
			if err != nil {
				t.Fatal(err)
			}
			return o
		}
		got, err := Merge(parse(c.a), parse(c.b))
		if want := parse(c.want); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q and %q: %v, %+v, want %+v", c.a, c.b, err, got, want)
		}
	}
	a, _, _ := ParseOptions(`command="a"`)
	b, _, _ := ParseOptions(`command=""`)
	if _, err := Merge(a, b); err == nil {
		t.Error("two forced commands were merged")
	}
}

func TestACertificateCanOnlyNarrowWhatItsLinePermits(t *testing.T) {
	line, _, _ := ParseOptions(`cert-authority,no-x11-forwarding,principals="p",from="192.0.2.0/24"`)
	cert := &sshkey.Certificate{Type: sshkey.UserCert, Principals: []string{"p"},
		CriticalOptions: map[string]string{"source-address": "192.0.2.7", "force-command": "x", "verify-required": ""},
		Extensions:      map[string]string{"permit-pty": "", "permit-X11-forwarding": "", "novel@example.org": "1"},
	}
	co, err := FromCertificate(cert)
	if err != nil {
		t.Fatal(err)
	}
	o, err := Merge(line, co)
	if err != nil {
		t.Fatal(err)
	}
	if !o.PTY || o.X11Forwarding || o.AgentForwarding || o.Command != "x" || !o.VerifyRequired || o.CertAuthority {
		t.Errorf("merged %+v", o)
	}
	for addr, ok := range map[string]bool{"192.0.2.7": true, "192.0.2.8": false, "198.51.100.1": false} {
		if err := o.Check(Client{Addr: netip.MustParseAddr(addr)}, false); (err == nil) != ok {
			t.Errorf("%s: %v", addr, err)
		}
	}
	other, _, _ := ParseOptions(`command="y"`)
	if _, err := Merge(other, co); err == nil {
		t.Error("two forced commands were merged")
	}
	for name, c := range map[string]sshkey.Certificate{
		"an unknown critical option": {CriticalOptions: map[string]string{"novel@example.org": ""}},
		"a bad source-address":       {CriticalOptions: map[string]string{"source-address": "192.0.2.*"}},
		"an extension with a value":  {Extensions: map[string]string{"permit-pty": "x"}},
	} {
		c.Type = sshkey.UserCert
		if _, err := FromCertificate(&c); err == nil {
			t.Errorf("%s passed", name)
		}
	}
	if _, err := FromCertificate(&sshkey.Certificate{Type: sshkey.HostCert}); err == nil {
		t.Error("a host certificate passed")
	}
}

func TestStrictModesRefusesWhatOthersCouldWrite(t *testing.T) {
	uid := uint32(os.Getuid())
	const private = 4321
	shared := func(file string, mode os.FileMode) error {
		return errors.Join(os.Chown(file, -1, private), os.Chmod(file, mode))
	}
	for name, c := range map[string]struct {
		change func(home string) error
		want   string
	}{
		"nothing":                 {func(string) error { return nil }, ""},
		"a writable file":         {func(h string) error { return os.Chmod(h+"/.ssh/authorized_keys", 0o620) }, "bad ownership or modes for file"},
		"a writable .ssh":         {func(h string) error { return os.Chmod(h+"/.ssh", 0o770) }, "bad ownership or modes for directory"},
		"a writable home":         {func(h string) error { return os.Chmod(h, 0o707) }, "bad ownership or modes for directory"},
		"a link out of the home":  {func(h string) error { return link(h, filepath.Dir(h)+"/open/keys") }, "bad ownership or modes for directory"},
		"a link within the home":  {func(h string) error { return link(h, h+"/elsewhere") }, ""},
		"a writable parent above": {func(h string) error { return os.Chmod(filepath.Dir(h), 0o777) }, ""},
		"a file of somebody else": {func(h string) error { return os.Chown(h+"/.ssh/authorized_keys", 4321, -1) }, "bad ownership or modes for file"},
		"a directory in place": {func(h string) error {
			os.Remove(h + "/.ssh/authorized_keys")
			return os.Mkdir(h+"/.ssh/authorized_keys", 0o700)
		}, "not a regular file"},
		"a file of the user's own group":         {func(h string) error { return shared(h+"/.ssh/authorized_keys", 0o660) }, ""},
		"a home of the user's own group":         {func(h string) error { return shared(h, 0o775) }, ""},
		"a file of the own group that all write": {func(h string) error { return shared(h+"/.ssh/authorized_keys", 0o662) }, "bad ownership or modes for file"},
		"a missing file":                         {func(h string) error { return os.Remove(h + "/.ssh/authorized_keys") }, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			top := t.TempDir()
			home := top + "/home"
			for _, d := range []string{home, home + "/.ssh", top + "/open"} {
				if err := os.Mkdir(d, 0o700); err != nil {
					t.Fatal(err)
				}
			}
			os.Chmod(top+"/open", 0o777)
			for _, f := range []string{home + "/.ssh/authorized_keys", home + "/elsewhere", top + "/open/keys"} {
				if err := os.WriteFile(f, []byte(keyA), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := c.change(home); errors.Is(err, os.ErrPermission) {
				t.Skip(err)
			} else if err != nil {
				t.Fatal(err)
			}
			f, err := Open(home+"/.ssh/authorized_keys", home, uid, func(gid, _ uint32) bool { return gid == private })
			if err == nil {
				f.Close()
			}
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if IsMissing(err) != (name == "a missing file") {
				t.Errorf("IsMissing(%v)", err)
			}
		})
	}
}

func link(home, to string) error {
	name := home + "/.ssh/authorized_keys"
	return errors.Join(os.Remove(name), os.Symlink(to, name))
}

func TestTheOpenFileMustBeTheOneAtThePath(t *testing.T) {
	home := t.TempDir()
	os.Chmod(home, 0o700)
	name := home + "/keys"
	os.WriteFile(name, []byte("a"), 0o600)
	f, err := Open(name, home, uint32(os.Getuid()), NoGroup)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	os.Rename(name, name+".old")
	os.WriteFile(name, []byte("b"), 0o600)
	if err := CheckPath(f, name, home, uint32(os.Getuid()), NoGroup); err == nil || !strings.Contains(err.Error(), "replaced") {
		t.Errorf("got %v", err)
	}
}

func TestAFifoDoesNotHoldTheReader(t *testing.T) {
	name := t.TempDir() + "/fifo"
	if out, err := exec.Command("mkfifo", name).CombinedOutput(); err != nil {
		t.Skipf("%v: %s", err, out)
	}
	if _, err := Open(name, "/", 0, nil); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("got %v", err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(`restrict,command="a \"b\"",from="10.0.0.0/8",environment="A=b" ` + keyA + " c\n"))
	f.Add([]byte(`cert-authority,principals="a,b",permitopen="[::1]:*",permitlisten="1",expiry-time="20300101Z" ` + skA + "\n"))
	f.Add([]byte("restrict alice\nbob # x\n"))
	_, priv, _ := ed25519.GenerateKey(rand.Reader)
	s, _ := ssh.NewSignerFromKey(priv)
	f.Add(ssh.MarshalAuthorizedKey(s.PublicKey()))
	c := Client{Host: "h", Addr: netip.MustParseAddr("192.0.2.1"), Now: time.Unix(1900000000, 0)}
	f.Fuzz(func(t *testing.T, b []byte) {
		es, _, err := collect(Entries(bytes.NewReader(b)))
		if err != nil {
			return
		}
		for _, e := range es {
			if e.Key.Type == "" {
				t.Error("an entry without a key")
			}
			e.Options.Check(c, true)
		}
		ps, _, _ := collect(Principals(bytes.NewReader(b)))
		for _, p := range ps {
			if p.Name == "" || strings.ContainsAny(p.Name, " \t#\n") {
				t.Errorf("principal %q", p.Name)
			}
		}
	})
}

func TestOptionsComeThroughTheirEncoding(t *testing.T) {
	o, _, err := ParseOptions(`restrict,pty,command="echo é",environment="A=b",permitopen="h:1",principals="a,b",expiry-time="20300101"`)
	if err != nil {
		t.Fatal(err)
	}
	got, err := OptionsFormat.Decode(OptionsFormat.Encode(&o))
	if err != nil || !got.ValidUntil.Equal(o.ValidUntil) {
		t.Fatalf("%+v, %v", got, err)
	}
	got.ValidUntil = o.ValidUntil // its zone may be another value of the same zone
	if !reflect.DeepEqual(*got, o) {
		t.Errorf("got %+v, want %+v", *got, o)
	}
	if got := fmt.Sprintf("%d %08x", OptionsFormat.Version, OptionsFormat.Fingerprint()); got != "1 e099d251" {
		t.Errorf("Options has become %q: raise its Version, then write that here", got)
	}
}
