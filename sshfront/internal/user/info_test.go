package user

import (
	"encoding/binary"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/internal/authkeys"
	"p9auth/internal/sshdconf"
	"p9auth/sshfront/internal/userlink"
)

func mode(op byte, v uint32) []byte { return binary.BigEndian.AppendUint32([]byte{op}, v) }

func TestEveryModeIsSet(t *testing.T) {
	for op, f := range modeFlags {
		var term unix.Termios
		setModes(&term, mode(op, 1))
		if *f.field(&term) != f.bit {
			t.Errorf("opcode %d is not set: %+v", op, term)
		}
		setModes(&term, mode(op, 0))
		if term != (unix.Termios{}) {
			t.Errorf("opcode %d is not cleared: %+v", op, term)
		}
	}
	for op, i := range modeChars {
		var term unix.Termios
		setModes(&term, mode(op, 7))
		if term.Cc[i] != 7 {
			t.Errorf("opcode %d: %v", op, term.Cc)
		}
		if setModes(&term, mode(op, 255)); term.Cc[i] != 0 {
			t.Errorf("opcode %d is not disabled: %v", op, term.Cc)
		}
	}
	var term unix.Termios
	modes := append(mode(modeCS7, 1), mode(modeCS8, 1)...)
	modes = append(modes, mode(modeISpeed, 9600)...)
	modes = append(modes, mode(modeOSpeed, 38400)...)
	modes = append(modes, mode(modeOSpeed, 12345)...) // no such speed
	modes = append(modes, mode(100, 1)...)            // no such mode
	modes = append(modes, 53, 0)                      // cut off
	setModes(&term, modes)
	if term.Cflag != unix.CS8|unix.B38400 || term.Ispeed != unix.B9600 || term.Lflag != 0 {
		t.Errorf("got %+v", term)
	}
	setModes(&term, append([]byte{modeEnd}, mode(53, 1)...))
	setModes(&term, append(mode(200, 1), mode(53, 1)...))
	if term.Lflag != 0 {
		t.Error("parsing goes on after the end")
	}
}

func FuzzModes(f *testing.F) {
	f.Add([]byte{53, 0, 0, 0, 1, 0})
	f.Add([]byte{1, 0, 0, 0, 3, 128, 0, 0, 0x96, 0, 42, 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		var term unix.Termios
		setModes(&term, b)
	})
}

// info is that of a user with a configuration and options of a key.
func info(t *testing.T, conf, options string) *Info {
	t.Helper()
	file := filepath.Join(t.TempDir(), "conf")
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := sshdconf.Parse(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	i := &Info{User: "wren", UID: 1500, Home: t.TempDir(), Shell: "/bin/zsh", Umask: -1, Settings: *c.Global().Session(),
		Client: netip.MustParseAddrPort("192.0.2.1:50000"), Server: netip.MustParseAddrPort("[2001:db8::1]:22")}
	if options != "" {
		o, _, err := authkeys.ParseOptions(options)
		if err != nil {
			t.Fatal(err)
		}
		i.Options = &o
	}
	return i
}

func TestWhatFactotumHasSealedGoesBeforeTheMemfd(t *testing.T) {
	forged := info(t, "", "")
	forged.Messages = []string{"from PAM"}
	if got, err := forged.sealed(); err != nil || got != forged {
		t.Errorf("with nothing sealed: %v, %+v", err, got)
	}
	m := capproto.NewMsg("ok", "user", "alice", "uid", "1001", "gid", "1002", "home", "/home/alice", "shell", "/bin/sh",
		"remote", "192.0.2.1:5", "local", "192.0.2.2:22",
		"settings", capproto.B64(sshdconf.SessionFormat.Encode(&sshdconf.Session{PrintMotd: true})),
		"options", capproto.B64(authkeys.OptionsFormat.Encode(&authkeys.Options{PTY: true})))
	b, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(capproto.LoginVariable, string(b))
	got, err := forged.sealed()
	if err != nil || got.User != "alice" || got.UID != 1001 || got.Settings.PermitTTY || !got.Settings.PrintMotd || got.Options == nil || got.Client.String() != "192.0.2.1:5" ||
		!reflect.DeepEqual(got.Messages, forged.Messages) {
		t.Errorf("%v, %+v", err, got)
	}
	for _, bad := range []string{"", "ok", "ok user=alice uid=1 gid=1 settings={}", "ok user=alice uid=x gid=1 remote=192.0.2.1:5 local=192.0.2.2:22 settings={}"} {
		t.Setenv(capproto.LoginVariable, bad)
		if got, err := forged.sealed(); err == nil {
			t.Errorf("%q is %+v", bad, got)
		}
	}
}

func TestInfoGoesThroughTheMemfd(t *testing.T) {
	i := info(t, "PermitOpen a:1\nSetEnv A=b\n", `command="x",permitopen="h:1"`)
	i.NoFile = &[2]uint64{1024, 1 << 63}
	i.Messages = []string{"a\x1bb\n", "not \xff UTF-8"}
	f, err := i.Memfd()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("x"), 0); err == nil {
		t.Error("the memory file can be changed")
	}
	got, err := readInfo(f)
	i.Link = userlink.Version
	if err != nil || !reflect.DeepEqual(got, i) {
		t.Errorf("%v: got %+v, want %+v", err, got, i)
	}
	a := &capproto.AuthInfo{User: "wren", UID: 1500, Settings: sshdconf.SessionFormat.Encode(&sshdconf.Session{PermitTTY: true}),
		Options: authkeys.OptionsFormat.Encode(&authkeys.Options{PTY: true})}
	if got, err := NewInfo(a, netip.MustParseAddrPort("[::ffff:192.0.2.1]:1"), i.Server); err != nil || !got.Options.PTY || got.Options.UserRC ||
		!got.Settings.PermitTTY || got.Client.String() != "192.0.2.1:1" {
		t.Errorf("%v: %+v", err, got)
	}
	a.Options = nil
	if got, err := NewInfo(a, i.Client, i.Server); err != nil || got.Options != nil || !got.options().PTY {
		t.Errorf("without a key: %v: %+v", err, got)
	}
	a.Settings = a.Settings[:len(a.Settings)-1]
	if _, err := NewInfo(a, i.Client, i.Server); err == nil {
		t.Error("settings that are cut off are taken")
	}
	a.Settings = nil
	if _, err := NewInfo(a, i.Client, i.Server); err == nil {
		t.Error("no settings are taken")
	}
}

func TestTheEnvironmentIsSshds(t *testing.T) {
	i := info(t, "AcceptEnv LC_* PATH\nSetEnv ADMIN=1\nPermitUserEnvironment F*,K*\n", `environment="KEY=1",environment="EVIL=1"`)
	i.Env = []string{"LC_B=pam", "SSH_AUTH_INFO_0=x", "SSH_CONNECTION=x", "MAIL=/m"}
	if err := os.Mkdir(filepath.Join(i.Home, ".ssh"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(i.Home, ".ssh/environment"), []byte("FILE=a=b\n #x\n\nnonsense\nLD_PRELOAD=x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	env, complaints := i.environment(envInput{
		client: []string{"LC_A=1", "LC_B=1", "PATH=/x", "LD_PRELOAD=x"}, term: "vt100", tty: "/dev/pts/1", display: "localhost:10.0",
		agent: "/a", authInfo: "/i", original: "", hasOrigin: true,
	})
	want := []string{"LC_A=1", "LC_B=pam", "PATH=" + stdPath, "USER=wren", "LOGNAME=wren", "HOME=" + i.Home, "SHELL=/bin/zsh", "TERM=vt100",
		"DISPLAY=localhost:10.0", "MAIL=/m", "SSH_AUTH_SOCK=/a", "KEY=1", "FILE=a=b", "ADMIN=1", "SSH_CLIENT=192.0.2.1 50000 22",
		"SSH_CONNECTION=192.0.2.1 50000 2001:db8::1 22", "SSH_TTY=/dev/pts/1", "SSH_USER_AUTH=/i", "SSH_ORIGINAL_COMMAND="}
	if !reflect.DeepEqual(env, want) {
		t.Errorf("got  %q\nwant %q", env, want)
	}
	if len(complaints) != 1 || !strings.HasPrefix(complaints[0], "Bad line 4 in ") {
		t.Errorf("complaints %q", complaints)
	}
	i = info(t, "", `environment="KEY=1"`)
	i.UID = 0
	env, _ = i.environment(envInput{client: []string{"LC_A=1"}})
	if got := strings.Join(env, "\n"); strings.Contains(got, "KEY") || strings.Contains(got, "LC_A") || !strings.Contains(got, "PATH="+rootPath) {
		t.Errorf("root, without permissions: %q", env)
	}
}

func TestWhatASessionRuns(t *testing.T) {
	const subs = "Subsystem sftp internal-sftp -R -u 022\nSubsystem ext /x/server -v\n"
	sftp := []string{"sshfront", "sftp", "-R", "-u", "022"}
	for _, c := range []struct {
		conf, options, command, subsystem string
		want                              plan
	}{
		{subs, "", "", "", plan{path: "/bin/zsh", argv: []string{"-zsh"}, login: true, userRC: true}},
		{subs, "", "a b", "", plan{path: "/bin/zsh", argv: []string{"zsh", "-c", "a b"}, userRC: true}},
		{subs, "no-user-rc", "a", "", plan{path: "/bin/zsh", argv: []string{"zsh", "-c", "a"}}},
		{subs, "", "", "sftp", plan{argv: sftp, subsystem: true}},
		{subs, "", "", "ext", plan{path: "/bin/zsh", argv: []string{"zsh", "-c", "/x/server -v"}, subsystem: true}},
		{subs + "ForceCommand f", `command="k"`, "a", "", plan{path: "/bin/zsh", argv: []string{"zsh", "-c", "f"}, forced: true, original: "a", hasOriginal: true}},
		{subs, `command="k"`, "", "", plan{path: "/bin/zsh", argv: []string{"zsh", "-c", "k"}, forced: true, userRC: true}},
		{subs, `command=""`, "a", "", plan{path: "/bin/zsh", argv: []string{"zsh", "-c", ""}, forced: true, userRC: true, original: "a", hasOriginal: true}},
		{subs, `command="k"`, "", "sftp", plan{path: "/bin/zsh", argv: []string{"zsh", "-c", "k"}, forced: true, subsystem: true,
			original: "internal-sftp -R -u 022", hasOriginal: true}},
		{subs + "ForceCommand internal-sftp -d /x", "", "", "ext", plan{argv: []string{"sshfront", "sftp", "-d", "/x"}, forced: true, subsystem: true,
			original: "/x/server -v", hasOriginal: true}},
		{subs + "ForceCommand internal-sftp", "", "sh", "", plan{forced: true, original: "sh", hasOriginal: true, refusal: "This service allows sftp connections only."}},
	} {
		got, err := info(t, c.conf, c.options).plan(c.command, c.command != "", c.subsystem)
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q, %s, %q%q: %v\ngot  %+v\nwant %+v", c.conf, c.options, c.command, c.subsystem, err, got, c.want)
		}
	}
	if _, err := info(t, subs, `command="k"`).plan("", false, "none"); err == nil {
		t.Error("a subsystem that there is not")
	}
}

func TestWhatMayBeForwarded(t *testing.T) {
	for _, c := range []struct {
		conf, options string
		may           func(*Info) error
		want          bool
	}{
		{"", "", func(i *Info) error { return i.mayDial("h", 1) }, true},
		{"AllowTcpForwarding remote", "", func(i *Info) error { return i.mayDial("h", 1) }, false},
		{"AllowTcpForwarding local", "", func(i *Info) error { return i.mayDial("h", 1) }, true},
		{"DisableForwarding yes", "", func(i *Info) error { return i.mayDial("h", 1) }, false},
		{"", "restrict", func(i *Info) error { return i.mayDial("h", 1) }, false},
		{"", "restrict,port-forwarding", func(i *Info) error { return i.mayDial("h", 1) }, true},
		{"PermitOpen h:1 k:*", "", func(i *Info) error { return i.mayDial("k", 9) }, true},
		{"PermitOpen h:1 k:*", "", func(i *Info) error { return i.mayDial("h", 9) }, false},
		{"PermitOpen none", `permitopen="h:1"`, func(i *Info) error { return i.mayDial("h", 1) }, false},
		{"", `permitopen="h:1"`, func(i *Info) error { return i.mayDial("h", 1) }, true},
		{"", `permitopen="h:1"`, func(i *Info) error { return i.mayDial("h", 2) }, false},
		{"PermitOpen h:*", `permitopen="*:2"`, func(i *Info) error { return i.mayDial("h", 2) }, true},
		{"", "", func(i *Info) error { return i.mayListen("", 8080) }, true},
		{"", "", func(i *Info) error { return i.mayListen("", 0) }, true},
		{"", "", func(i *Info) error { return i.mayListen("", 80) }, false},
		{"", "", func(i *Info) error { i.UID = 0; return i.mayListen("", 80) }, true},
		{"AllowTcpForwarding local", "", func(i *Info) error { return i.mayListen("", 8080) }, false},
		{"PermitListen 8080", "", func(i *Info) error { return i.mayListen("any", 8080) }, true},
		{"PermitListen 8080", "", func(i *Info) error { return i.mayListen("any", 8081) }, false},
		{"", `permitlisten="localhost:8080"`, func(i *Info) error { return i.mayListen("*", 8080) }, false},
		{"", "", (*Info).mayListenUnix, true},
		{"PermitListen 8080", "", (*Info).mayListenUnix, true},
		{"", `permitlisten="8080"`, (*Info).mayListenUnix, true},
		{"PermitListen none", "", (*Info).mayListenUnix, false},
		{"PermitListen none", `permitlisten="8080"`, (*Info).mayListenUnix, false},
		{"PermitListen localhost:8080", "", func(i *Info) error { return i.mayListen("LocalHost", 8080) }, true},
		{"AllowStreamLocalForwarding local", "", (*Info).mayListenUnix, false},
	} {
		err := c.may(info(t, c.conf, c.options))
		if (err == nil) != c.want || err != nil && !userlink.Prohibited(err) {
			t.Errorf("%q, %s: %v, want %v", c.conf, c.options, err, c.want)
		}
	}
}

func TestWhereAForwardListens(t *testing.T) {
	loopback, wildcard := []string{"127.0.0.1", "::1"}, []string{"0.0.0.0", "::"}
	no, yes, client := sshdconf.GatewayNo, sshdconf.GatewayYes, sshdconf.GatewayClientSpecified
	for _, c := range []struct {
		host string
		g    sshdconf.Gateway
		want []string
	}{
		{"", no, loopback}, {"*", no, loopback}, {"192.0.2.1", no, loopback}, {"localhost", no, loopback},
		{"127.0.0.1", no, loopback[:1]}, {"::1", no, loopback[1:]},
		{"", yes, wildcard}, {"localhost", yes, wildcard}, {"192.0.2.1", yes, wildcard}, {"127.0.0.1", yes, wildcard},
		{"", client, wildcard}, {"*", client, wildcard}, {"localhost", client, loopback}, {"192.0.2.1", client, []string{"192.0.2.1"}},
	} {
		if got := bindHosts(c.host, c.g, sshdconf.FamilyAny); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q, %v: %q", c.host, c.g, got)
		}
	}
	if got := bindHosts("", no, sshdconf.FamilyInet6); !reflect.DeepEqual(got, loopback[1:]) {
		t.Errorf("AddressFamily inet6: %q", got)
	}
}

func TestWordsForXauth(t *testing.T) {
	for s, want := range map[string]bool{"MIT-MAGIC-COOKIE-1": true, "00ff": true, "": false, "a\nadd evil": false, "a b": false, `"`: false, "$(x)": false} {
		if xauthWord(s) != want {
			t.Errorf("%q: %v", s, !want)
		}
	}
}

func TestCommandsAreChecked(t *testing.T) {
	for command, good := range map[string]bool{
		"/usr/lib/openssh/sftp-server -Z": true, "internal-sftp": true, "internal-sftp -R -P fsync": true, "internal-sftp -P fsinc": false, "internal-sftp -l LOUD": false, "internal-sftp -Q requests": false,
	} {
		if err := CheckCommand(command); (err == nil) != good {
			t.Errorf("%s: %v", command, err)
		}
	}
}

// The server may ask for entries of two databases, and for nothing else.
func TestLookupsForTheSFTPServer(t *testing.T) {
	for in, want := range map[string]string{
		"passwd 0\ngroup 0\npasswd 4294967294\n":  "root:x:0:0:root:/root:/bin/bash\nroot:x:0:\n\n",
		"passwd root\nhosts localhost\ngroup 0\n": "root:x:0:0:root:/root:/bin/bash\n",
		"passwd -s\n": "", "passwd\n": "", "passwd a b\n": "", "group a:b\n": "",
	} {
		var rw struct {
			io.Reader
			strings.Builder
		}
		rw.Reader = strings.NewReader(in)
		serveNames(struct {
			io.Reader
			io.Writer
		}{rw.Reader, &rw.Builder})
		if rw.String() != want {
			t.Errorf("%q: %q, want %q", in, rw.String(), want)
		}
	}
}
