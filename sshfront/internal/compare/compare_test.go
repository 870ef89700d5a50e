package compare

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"p9auth/internal/sshdconf"
)

func TestWhatSshdForbidsAndWePermitIsWeaker(t *testing.T) {
	for _, c := range []struct {
		keyword, sshd, ours string
		want                Kind
	}{
		{"passwordauthentication", "no", "yes", Weaker},
		{"passwordauthentication", "yes", "no", ShutsOut},
		{"strictmodes", "yes", "no", Weaker},
		{"strictmodes", "no", "yes", ShutsOut},
		{"permitrootlogin", "no", "without-password", Weaker},
		{"permitrootlogin", "forced-commands-only", "without-password", Weaker},
		{"permitrootlogin", "yes", "without-password", ShutsOut},
		{"allowtcpforwarding", "no", "local", Weaker},
		{"allowtcpforwarding", "yes", "local", ShutsOut},
		{"allowtcpforwarding", "remote", "local", Weaker},
		{"allowtcpforwarding", "local", "yes", Weaker},
		{"allowgroups", "wheel", "", Weaker},
		{"allowgroups", "", "wheel", ShutsOut},
		{"allowgroups", "wheel", "adm", Weaker},
		{"forcecommand", "/bin/backup", "none", Weaker},
		{"forcecommand", "none", "/bin/backup", ShutsOut},
		{"authenticationmethods", "publickey,password", "any", Weaker},
		{"maxauthtries", "3", "6", Weaker},
		{"maxauthtries", "6", "3", ShutsOut},
		{"logingracetime", "120", "0", Weaker},
		{"logingracetime", "0", "120", ShutsOut},
		{"authorizedkeyscommand", "/bin/keys", "none", ShutsOut},
		{"authorizedkeyscommand", "none", "/bin/keys", Weaker},
		{"authorizedkeyscommanduser", "keys", "", ShutsOut},
		{"authorizedkeyscommanduser", "keys", "nobody", Weaker},
		{"hostkey", "/etc/ssh/a", "/etc/ssh/b", ShutsOut},
		{"requiredrsasize", "3072", "1024", Weaker},
		{"requiredrsasize", "1024", "3072", ShutsOut},
		{"usepam", "no", "yes", Weaker},
		{"pamservicename", "sshd", "p9auth-sshd", Weaker},
		{"pubkeyauthoptions", "touch-required", "none", Weaker},
		{"pubkeyauthoptions", "none", "touch-required", ShutsOut},
		{"pubkeyacceptedalgorithms", "ssh-ed25519,sk-ssh-ed25519@openssh.com", "ssh-ed25519", ShutsOut},
		{"ciphers", "a,b", "a,b,c", Weaker},
		{"ciphers", "a,b", "a", ShutsOut},
		{"ciphers", "a,b", "b,a", Differs},
		{"gssapiauthentication", "yes", "", ShutsOut},
		{"ipqos", "a", "b", Differs},
		{"akeywordoftomorrow", "no", "yes", Weaker},
	} {
		values := func(s string) []string {
			if s == "" {
				return nil
			}
			return []string{s}
		}
		if got := Judge(c.keyword, values(c.sshd), values(c.ours), false); got != c.want {
			t.Errorf("%s %q, ours %q: %v, want %v", c.keyword, c.sshd, c.ours, got, c.want)
		}
	}
}

// Each keyword of the table is either judged on purpose or taken for weaker, so none
// that decides about logins may be among the harmless.
func TestNoKeywordThatDecidesIsHarmless(t *testing.T) {
	var known []string
	for _, k := range sshdconf.Keywords() {
		known = append(known, strings.ToLower(k.Name))
	}
	for k := range harmless {
		if !slices.Contains(known, k) {
			t.Errorf("%s: no such keyword", k)
		}
		for _, part := range []string{"authentication", "authorized", "permit", "allow", "deny", "root", "command", "match", "forward", "keys", "pam"} {
			if strings.Contains(k, part) {
				t.Errorf("%s is taken for harmless", k)
			}
		}
	}
}

func TestEachUserGroupAndAddressOfAMatchIsCompared(t *testing.T) {
	points, err := Points(map[string][]string{
		"user":      {"bob,!carol,adm?-*"},
		"group":     {"wheel"},
		"address":   {"10.0.0.0/8,!10.1.2.3", "2001:db8::/32", "172.16.*"},
		"localport": {"2222"},
	}, func(list string) []string { return []string{"member-of-" + list} })
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Join(points, "\n")
	for _, want := range []string{"user=root,", "user=bob,", "user=carol,", "user=admx-x,", "user=member-of-wheel,", "addr=10.0.0.0,", "addr=10.1.2.3,",
		"addr=2001:db8::,", "addr=172.16.1.1,", "addr=192.0.2.1,", "lport=2222", "lport=22\n"} {
		if !strings.Contains(all, want) {
			t.Errorf("nothing with %s", want)
		}
	}
	if !slices.Contains(points, "user=bob,host=client.invalid,addr=10.0.0.0,laddr=192.0.2.2,lport=2222") {
		t.Error("they are not combined")
	}
}

func TestTooManyCombinationsAreRefused(t *testing.T) {
	many := "u"
	for i := range 600 {
		many += ",u" + strings.Repeat("x", i)
	}
	if _, err := Points(map[string][]string{"user": {many}}, nil); err == nil {
		t.Error("they are compared in part, and nobody is told")
	}
}

// With the real sshd: see that what an administrator has set is missed by name.
func TestWhatWouldBeLostIsNamedAndAcceptedByName(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("sshd -T and unshare need root")
	}
	if _, err := os.Stat(sshd); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	key := filepath.Join(dir, "key")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v: %s", err, out)
	}
	// sshd -T wants its directory and a host key, which a machine that builds may lack.
	if os.Getenv("P9AUTH_COMPARE") == "" {
		cmd := exec.Command("unshare", "-m", "sh", "-c", `mount -t tmpfs none /run && mkdir -m 755 /run/sshd && exec "$@"`, "sh",
			os.Args[0], "-test.run", "^TestWhatWouldBeLostIsNamedAndAcceptedByName$", "-test.v")
		cmd.Env = append(os.Environ(), "P9AUTH_COMPARE=1")
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "--- PASS") {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	conf := func(name, text string) string {
		f := filepath.Join(dir, name)
		if err := os.WriteFile(f, []byte("HostKey "+key+"\nUsePAM yes\n"+text), 0o600); err != nil {
			t.Fatal(err)
		}
		return f
	}
	strict := conf("strict", "AllowUsers root\nPermitRootLogin no\nMatch User bob Address 10.0.0.0/8\nPasswordAuthentication no\n")
	loose := conf("loose", "")
	noKey := conf("no-key", "HostKey /nonexistent\n")
	unknown := conf("unknown", "Match Group p9auth-nobodys\nPermitTTY no\n")
	command := conf("command", "AuthorizedKeysCommand /bin/true\nAuthorizedKeysCommandUser nobody\n")
	refused := conf("refused", "Match User bob\nPermitTunnel yes\nMatch User carol\nPermitTTY no\n")
	size := conf("size", "RequiredRSASize 3072\n")
	// What "factotum -t" says of a key that it cannot use.
	without := func(name, key string) string {
		f := filepath.Join(dir, name)
		if err := os.WriteFile(f, []byte("#!/bin/sh\necho 'factotum: warning: left out: host key: "+key+": ssh: unhandled key type' >&2\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		return f
	}
	refuses, misses := without("refuses", key), without("misses", "/nonexistent")
	for _, c := range []struct {
		why, want string // a part of the error, empty: none
		args      []string
	}{
		{"the same file", "", []string{"-f", strict, "--", "-f", strict}},
		{"another file", "allowusers, permitrootlogin, passwordauthentication: not as with sshd", []string{"-f", loose, "--", "-f", strict}},
		{"accepted in part", "passwordauthentication: not as with sshd", []string{"-f", loose, "-a", "allowusers,permitrootlogin", "--", "-f", strict}},
		{"accepted", "", []string{"-f", loose, "-a", "allowusers,PermitRootLogin,passwordauthentication", "--", "-f", strict}},
		{"an option of the unit", "passwordauthentication: not as with sshd", []string{"-f", loose, "--", "-f", loose, "-o", "PasswordAuthentication=no"}},
		{"ports are the socket's", "", []string{"-f", loose, "--", "-f", loose, "-p", "2222"}},
		{"another PAM service", "pamservicename: not as with sshd", []string{"-f", loose, "-s", "p9auth-sshd", "--", "-f", loose}},
		{"it is accepted", "", []string{"-f", loose, "-s", "p9auth-sshd", "-a", "pamservicename", "--", "-f", loose}},
		{"a key that factotum leaves out", "hostkey: not as with sshd", []string{"-f", loose, "-k", refuses, "--", "-f", loose}},
		{"a key that sshd leaves out, too", "", []string{"-f", noKey, "-k", misses, "--", "-f", noKey}},
		{"a group of which nobody is known", "match: not as with sshd", []string{"-f", loose, "--", "-f", unknown}},
		{"the same file with that group", "", []string{"-f", unknown, "--", "-f", unknown}},
		{"keys by a command", "authorizedkeyscommand, authorizedkeyscommanduser: not as with sshd", []string{"-f", loose, "--", "-f", command}},
		{"what p9auth refuses", "permittunnel, permittty: not as with sshd", []string{"-f", loose, "--", "-f", refused}},
		{"sizes of keys", "requiredrsasize: not as with sshd", []string{"-f", loose, "--", "-f", size}},
	} {
		var out bytes.Buffer
		err := Main(c.args, &out)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v\n%s", c.why, err, &out)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v, want %s\n%s", c.why, err, c.want, &out)
		}
	}
	var out bytes.Buffer
	Main([]string{"-f", loose, "--", "-f", strict}, &out)
	for _, want := range []string{"allowusers  +root +- +weaker +all", "passwordauthentication +no +yes +weaker +user=bob,host=client.invalid,addr=10.0.0.0,"} {
		if !matches(out.String(), want) {
			t.Errorf("the table has no line %q:\n%s", want, &out)
		}
	}
}

func matches(text, re string) bool { return regexp.MustCompile(re).MatchString(text) }
