package sshdconf

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"p9auth/internal/pack"
)

// Every part's fields are fields of Settings: part relies on it.
func TestPartsHaveOnlyFieldsOfSettings(t *testing.T) {
	all := reflect.TypeFor[Settings]()
	for _, p := range []reflect.Type{
		reflect.TypeFor[Listen](), reflect.TypeFor[Transport](), reflect.TypeFor[Connection](), reflect.TypeFor[Auth](), reflect.TypeFor[Session](),
	} {
		for i := range p.NumField() {
			f := p.Field(i)
			if g, ok := all.FieldByName(f.Name); !ok || g.Type != f.Type {
				t.Errorf("%s.%s is not the field of Settings", p.Name(), f.Name)
			}
		}
	}
}

var hostKeyTypes = []string{"ssh-rsa", "ecdsa-sha2-nistp256", "ssh-ed25519"}

func TestOnlyAlgorithmsOfHostKeysThatAreThereAreInATransport(t *testing.T) {
	conf := mustParse(t, "")
	for _, c := range []struct{ types, want string }{
		{"ssh-ed25519", "ssh-ed25519-cert-v01@openssh.com ssh-ed25519"},
		{"ssh-rsa", "rsa-sha2-512-cert-v01@openssh.com rsa-sha2-256-cert-v01@openssh.com rsa-sha2-512 rsa-sha2-256"},
		{"sk-ssh-ed25519@openssh.com ecdsa-sha2-nistp384",
			"ecdsa-sha2-nistp384-cert-v01@openssh.com sk-ssh-ed25519-cert-v01@openssh.com ecdsa-sha2-nistp384 sk-ssh-ed25519@openssh.com"},
		{"", ""},
	} {
		if got := strings.Join(conf.Transport(conf.Global(), strings.Fields(c.types)).HostKeyAlgorithms, " "); got != c.want {
			t.Errorf("%s: %s", c.types, got)
		}
	}
}

// settingsOf parses a configuration that sets something in each part.
func settingsOf(t testing.TB) *Settings {
	t.Helper()
	c, err := parse("/c", nil, memory{"/c": `
VersionAddendum hello
RekeyLimit 1G 1h
ClientAliveInterval 15
ChannelTimeout session=5m x11*=1h
AuthenticationMethods publickey,password publickey
AuthorizedKeysFile .ssh/authorized_keys /etc/keys/%u
RevokedKeys /etc/revoked
SetEnv A=1 B="x y"
AcceptEnv LANG LC_*
ForceCommand echo é
Subsystem sftp internal-sftp -R
PermitOpen 10.0.0.1:22 [::1]:80
PermitListen none
AllowTcpForwarding local
`})
	if err != nil {
		t.Fatal(err)
	}
	return c.Global()
}

func goesThrough[T any](t *testing.T, f pack.Format[T], v *T) []byte {
	t.Helper()
	b := f.Encode(v)
	got, err := f.Decode(b)
	if err != nil || !reflect.DeepEqual(got, v) {
		t.Errorf("%s: got %+v, %v; want %+v", f.Name, got, err, v)
	}
	return b
}

func TestEachPartComesThroughItsEncoding(t *testing.T) {
	s := settingsOf(t)
	goesThrough(t, TransportFormat, new(Config).Transport(s, hostKeyTypes))
	goesThrough(t, ConnectionFormat, s.Connection())
	goesThrough(t, AuthFormat, s.Auth())
	goesThrough(t, SessionFormat, s.Session())
	if got := s.Session(); got.ForceCommand != "echo é" || !got.PermitListen.None || len(got.PermitOpen.List) != 2 || got.AllowTcpForwarding != ForwardLocal {
		t.Errorf("%+v", got)
	}
	if got := s.Connection(); got.ChannelTimeout("x11-connection") == 0 || got.MaxSessions != 10 || !got.AcceptsEnv("LC_ALL") || got.AcceptsEnv("LD_PRELOAD") {
		t.Errorf("%+v", got)
	}
}

// A login's settings cross a wire three times. They must not grow back to what
// they were as one JSON of everything, 3.7 kB each time.
func TestPartsAreSmall(t *testing.T) {
	s := settingsOf(t)
	for name, n := range map[string]int{
		"transport":  len(TransportFormat.Encode(new(Config).Transport(s, hostKeyTypes))),
		"connection": len(ConnectionFormat.Encode(s.Connection())),
		"auth":       len(AuthFormat.Encode(s.Auth())),
		"session":    len(SessionFormat.Encode(s.Session())),
	} {
		t.Logf("%s: %d bytes", name, n)
		if n > 1024 {
			t.Errorf("%s: %d bytes", name, n)
		}
	}
}

// Whoever changes a part raises its version, so that a program can say which of
// two is older.
func TestAChangedPartHasANewVersion(t *testing.T) {
	for _, c := range []struct{ what, got, want string }{
		{"Transport", fmt.Sprintf("%d %08x", TransportFormat.Version, TransportFormat.Fingerprint()), "2 f7b5e37b"},
		{"Connection", fmt.Sprintf("%d %08x", ConnectionFormat.Version, ConnectionFormat.Fingerprint()), "1 ad8405a5"},
		{"Auth", fmt.Sprintf("%d %08x", AuthFormat.Version, AuthFormat.Fingerprint()), "1 70302b26"},
		{"Session", fmt.Sprintf("%d %08x", SessionFormat.Version, SessionFormat.Fingerprint()), "1 13fc836b"},
	} {
		if c.got != c.want {
			t.Errorf("%s has become %q: raise its Version, then write that here in place of %q", c.what, c.got, c.want)
		}
	}
}

func FuzzSession(f *testing.F) {
	f.Add(SessionFormat.Encode(settingsOf(f).Session()))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := SessionFormat.Decode(b)
		if err == nil && string(SessionFormat.Encode(s)) != string(b) {
			t.Error("two encodings of one value")
		}
	})
}

func BenchmarkSettingsOfALogin(b *testing.B) {
	s := settingsOf(b)
	for b.Loop() {
		TransportFormat.Decode(TransportFormat.Encode(new(Config).Transport(s, hostKeyTypes)))
		ConnectionFormat.Decode(ConnectionFormat.Encode(s.Connection()))
		SessionFormat.Decode(SessionFormat.Encode(s.Session()))
	}
}
