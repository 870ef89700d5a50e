package sshdconf

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// sshdT runs the real sshd -T in a mount namespace with a /run of its own.
func sshdT(t *testing.T, file, spec string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("sshd -T and unshare need root")
	}
	for _, p := range []string{"/usr/sbin/sshd", "/usr/bin/unshare", "/usr/bin/ssh-keygen"} {
		if _, err := os.Stat(p); err != nil {
			t.Skip(err)
		}
	}
	script := `mount -t tmpfs none /run && mkdir -m 755 /run/sshd && exec /usr/sbin/sshd -T -f "$1"`
	if spec != "" {
		script += ` -C "$2"`
	}
	var stderr bytes.Buffer
	cmd := exec.Command("unshare", "-m", "sh", "-c", script, "sh", file, spec)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil && strings.Contains(stderr.String(), "unshare") {
		t.Skipf("no mount namespace: %s", &stderr)
	}
	if err != nil {
		t.Fatalf("sshd -T: %v: %s", err, &stderr)
	}
	return string(out)
}

func TestDumpEqualsThatOfTheRealSshd(t *testing.T) {
	dir := t.TempDir()
	key := filepath.Join(dir, "hk")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key).CombinedOutput(); err != nil {
		t.Skipf("ssh-keygen: %v: %s", err, out)
	}
	// What differs on purpose is set to a value that both have.
	base := "HostKey " + key + `
UsePAM yes
PidFile /x/pid
GSSAPIStoreCredentialsOnRekey yes
Ciphers aes128-gcm@openssh.com,aes256-ctr
MACs hmac-sha2-256-etm@openssh.com,hmac-sha2-512
KexAlgorithms curve25519-sha256,ecdh-sha2-nistp256
HostKeyAlgorithms ssh-ed25519,rsa-sha2-512
DebianBanner no
IPQoS af21 cs1
`
	for name, c := range map[string]struct{ text, spec string }{
		"the defaults": {},
		"many values": {text: `
Port 2222
Port=2200
AddressFamily inet
LoginGraceTime 1h30m
MaxStartups 10:30:60
PerSourceMaxStartups 7
PerSourceNetBlockSize 24:56
TCPKeepAlive no
usedns YES
VersionAddendum hello  world
RekeyLimit 512M 90m
ClientAliveInterval 1m5s
ClientAliveCountMax 0
UnusedConnectionTimeout 1d
LogLevel verbose
SyslogFacility local3
FingerprintHash md5
PubkeyAuthentication no
AuthenticationMethods publickey,password "keyboard-interactive"
PermitEmptyPasswords yes
AllowUsers alice bob@192.0.2.0/24
DenyUsers "carol"
AllowGroups wheel
DenyGroups a b
AllowGroups more
MaxAuthTries 3
StrictModes no
AuthorizedKeysFile /etc/keys/%u .ssh/x
AuthorizedKeysCommand  /bin/true "a  b" %u # kept
AuthorizedKeysCommandUser nobody
AuthorizedPrincipalsFile /etc/p/%u
TrustedUserCAKeys /etc/ca
RevokedKeys /etc/krl
CASignatureAlgorithms ssh-ed25519
PubkeyAuthOptions verify-required touch-required
RequiredRSASize 3072
Banner /etc/issue
ExposeAuthInfo yes
MaxSessions 1
AcceptEnv LANG LC_*  # a comment
AcceptEnv X
SetEnv A="b c" D=e A=again
PermitUserEnvironment LANG,LC_*
PermitUserRC no
ForceCommand echo "hi   there" # kept
ChrootDirectory "/srv/%u"
Subsystem sftp internal-sftp -l INFO
PermitTTY no
PrintMotd no
PrintLastLog no
X11Forwarding yes
X11DisplayOffset 20
X11UseLocalhost no
XAuthLocation /opt/xauth
AllowAgentForwarding no
AllowTcpForwarding local
AllowStreamLocalForwarding remote
StreamLocalBindMask 0117
StreamLocalBindUnlink yes
DisableForwarding yes
GatewayPorts clientspecified
PermitOpen a:1 [::1]:* *:80
PermitListen 80 localhost:8080 *:9
`},
		"a Match that holds": {spec: "user=nobody,host=h.example.org,addr=192.0.2.9,laddr=127.0.0.1,lport=22", text: `
PasswordAuthentication no
AuthorizedKeysCommand /bin/true %u
AuthorizedKeysCommandUser nobody
AcceptEnv LANG
AllowUsers x
Subsystem sftp a
Match User nob*,!root Address 192.0.2.0/24,!192.0.2.1
PasswordAuthentication yes
AcceptEnv OTHER
MaxAuthTries 2
Match Host *.example.org LocalPort 22
MaxAuthTries 3
AuthorizedKeysCommand none
AuthorizedKeysCommandUser games
Banner /b
Match LocalAddress 10.0.0.0/8
X11Forwarding yes
Match Group nogroup
PermitTTY no
Match all
MaxSessions 3
`},
		"a Match that does not": {spec: "user=nobody,host=h,addr=192.0.2.1,laddr=127.0.0.1,lport=22", text: `
Match User nob*,!root Address 192.0.2.0/24,!192.0.2.1
PasswordAuthentication no
Match Group !nogroup,*
PermitTTY no
Match User=other
PermitTTY no
`},
		// sshd 9.2 takes only one of the two commands.
		"a command for principals": {text: `
AuthorizedPrincipalsCommand /bin/true "%i" %s
AuthorizedPrincipalsCommandUser %u
`},
		"lists relative to the defaults": {text: `
PubkeyAcceptedAlgorithms -*cert*,rsa*
CASignatureAlgorithms ^rsa-sha2-512
`},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(dir, "conf")
			if err := os.WriteFile(file, []byte(base+c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			real := sshdT(t, file, c.spec)
			conf, err := Parse(file, nil)
			if err != nil {
				t.Fatal(err)
			}
			s := conf.Global()
			if c.spec != "" {
				ci, err := ParseTestSpec(c.spec)
				if err != nil {
					t.Fatal(err)
				}
				ci.Groups = func() ([]string, error) { return []string{"nogroup"}, nil }
				s = mustFor(t, conf, ci)
			}
			var ours bytes.Buffer
			if err := s.Dump(&ours); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(real, "invaliduser:") { // OpenSSH 10.0 has no such penalty
				ours = *bytes.NewBufferString(strings.Replace(ours.String(), " invaliduser:5", "", 1))
			}
			got, want := byKeyword(ours.String()), byKeyword(real)
			compared := 0
			for kw, v := range want {
				k := lookup(kw)
				if k == nil {
					t.Errorf("sshd knows %q and we do not", kw)
				} else if k.show != nil && len(got[kw]) > 0 {
					compared++
					if !slices.Equal(v, got[kw]) {
						t.Errorf("%s: %q, sshd has %q", kw, got[kw], v)
					}
				}
			}
			for kw := range got {
				if len(want[kw]) == 0 && !slices.Contains(newer, kw) {
					t.Errorf("we print %s %q, sshd does not", kw, got[kw])
				}
			}
			if compared < 70 {
				t.Errorf("only %d keywords compared", compared)
			}
		})
	}
}

// newer are keywords that the sshd of Debian 12 does not have.
var newer = []string{"channeltimeout", "unusedconnectiontimeout", "persourcepenalties", "persourcepenaltyexemptlist", "refuseconnection", "pamservicename", "debianbanner"}

// byKeyword groups the lines of a dump, without the order of the resolver.
func byKeyword(dump string) map[string][]string {
	m := map[string][]string{}
	for l := range strings.Lines(dump) {
		k, v, _ := strings.Cut(strings.TrimRight(l, "\n"), " ")
		m[k] = append(m[k], v)
	}
	slices.Sort(m["listenaddress"])
	return m
}
