package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestOptionsAreReadAsGetoptDoes(t *testing.T) {
	o, err := parseArgs([]string{"-Ddd4p2222", "-oLogLevel=DEBUG3", "-o", "MaxStartups 3", "-tf", "conf", "-usomebody", "-E", "log",
		"--rpc", "/r", "--capuse=/c", "-g30", "-q"})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"AddressFamily inet", "Port 2222", "LogLevel=DEBUG3", "MaxStartups 3", "LoginGraceTime 30"}
	if !slices.Equal(o.overrides, want) {
		t.Errorf("overrides %q", o.overrides)
	}
	if o.file != "conf" || o.user != "somebody" || o.logFile != "log" || o.debug != 2 || !o.test || !o.quiet || o.rpc != "/r" || o.capuse != "/c" {
		t.Errorf("%+v", o)
	}
}

func TestWrongOptionsAreRefusedWithAReason(t *testing.T) {
	for _, c := range []struct {
		args string
		want string
	}{
		{"-Z", "-Z is not an option"},
		{"-h /key", "HostKey in the configuration"},
		{"-c /cert", "HostCertificate"},
		{"-r", "process of its own"},
		{"-R", "process of its own"},
		{"-f", "-f needs a value"},
		{"-p 0", "bad port"},
		{"-p http", "bad port"},
		{"--rcp x", "--rcp is not an option"},
		{"--rpc", "--rpc needs a path"},
		{"-C user=a", "with -T"},
		{"extra", "not expected"},
		{"-- extra", "not expected"},
		{"-o PasswordAuthentication=no", "factotum decides about PasswordAuthentication and reads the configuration file only: put it there"},
		{"-oCiphers=aes128-ctr", "factotum decides"},
		{"-oForceCommand=ls", "factotum decides"},
		{"-oHostKey=/x", "factotum decides"},
	} {
		if _, err := parseArgs(strings.Split(c.args, " ")); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.args, err)
		}
	}
	for _, ok := range []string{"-oUsePAM=yes", "-oPort=1", "-oPidFile=/x", "-V", "-iq", "-T"} {
		if _, err := parseArgs([]string{ok}); err != nil {
			t.Errorf("%s: %v", ok, err)
		}
	}
}

// TestMain is sshfront too, for those who start it as such.
func TestMain(m *testing.M) {
	if os.Args[0] == "sshfront" {
		main()
		return
	}
	os.Exit(m.Run())
}

// sshfront runs the program to its end.
func sshfront(args ...string) (string, error) {
	c := exec.Command("/proc/self/exe", args...)
	c.Args[0] = "sshfront"
	out, err := c.CombinedOutput()
	return string(out), err
}

func TestTheConfigurationIsCheckedAndPrinted(t *testing.T) {
	conf := filepath.Join(t.TempDir(), "conf")
	if err := os.WriteFile(conf, []byte("Port 2022\nMaxSessions 5\nMatch User alice Group root\n MaxSessions 7\nMatch User root Group root\n MaxSessions 8\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := sshfront("-t", "-f", conf); err != nil || out != "" {
		t.Errorf("-t: %v: %s", err, out)
	}
	for _, c := range []struct {
		args string
		want string
	}{
		{"-T", "maxsessions 5\n"}, {"-G", "port 2022\n"}, {"-Tp2023", "port 2023\n"},
		{"-T -C user=root,addr=192.0.2.1", "maxsessions 8\n"},
		{"-T -C user=root -C addr=192.0.2.1", "maxsessions 8\n"},
		{"-To MaxStartups=7", "maxstartups 7:100:7\n"},
	} {
		if out, err := sshfront(append(strings.Split(c.args, " "), "-f", conf)...); err != nil || !strings.Contains("\n"+out, "\n"+c.want) {
			t.Errorf("%s: %v: no %s in\n%s", c.args, err, c.want, out)
		}
	}
	os.WriteFile(conf, []byte("\nNoSuchThing yes\nUsePAM no\n"), 0o600)
	out, err := sshfront("-t", "-f", conf)
	if err == nil || !strings.Contains(out, conf+":2: bad configuration option: NoSuchThing") || !strings.Contains(out, conf+":3: UsePAM") {
		t.Errorf("-t: %v: %s", err, out)
	}
	if out, err := sshfront("-V"); err != nil || !strings.HasPrefix(out, "sshfront (p9auth)") {
		t.Errorf("-V: %v: %s", err, out)
	}
	if out, err := sshfront("--help"); err != nil || !strings.HasPrefix(out, "usage: sshfront [-Dd") {
		t.Errorf("--help: %v: %s", err, out)
	}
	if out, err := sshfront("-Z"); err == nil || out != "sshfront: -Z is not an option; see sshfront(8)\n" {
		t.Errorf("-Z: %v: %s", err, out)
	}
}
