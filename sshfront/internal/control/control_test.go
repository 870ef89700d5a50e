package control

import (
	"encoding/binary"
	"os"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"p9auth/capproto"
	"p9auth/internal/sshdconf"
	"p9auth/internal/sys"
)

// dup is a descriptor that ReadConfig may close.
func dup(t *testing.T, f *os.File) int {
	t.Helper()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

func TestTheConfigurationIsReadByEachProcess(t *testing.T) {
	want := &Config{RPC: "/rpc", Capuse: "/capuse", TCPKeepAlive: true, LogLevel: sshdconf.LogDebug2, LogVerbose: []string{"a:*"}, LogFixed: true}
	f, err := want.Memfd()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for range 2 { // its offset is shared
		if got, err := ReadConfig(dup(t, f)); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v, %v", got, err)
		}
	}
	if _, err := f.WriteAt([]byte("x"), 0); err == nil {
		t.Error("a process can change it for the others")
	}
}

func TestTheConfigurationOfAnotherVersionIsRefused(t *testing.T) {
	for version, want := range map[uint16]string{
		Version - 1: "sshfront's listener is older than its program; restart it",
		Version + 1: "its program is older than sshfront's listener; restart it",
	} {
		b := format.Encode(&Config{})
		binary.BigEndian.PutUint16(b, version)
		f, err := sys.Memfd("test", b)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ReadConfig(dup(t, f)); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("version %d: %v", version, err)
		}
		f.Close()
	}
	if _, err := ReadConfig(-1); err == nil {
		t.Error("no configuration is taken for one")
	}
}

func TestOnlyTheTwoRequestsAreUnderstood(t *testing.T) {
	link, _, err := sys.Socketpair()
	if err != nil {
		t.Fatal(err)
	}
	defer link.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	one := func(f *os.File) []*os.File { return []*os.File{f} }
	for _, c := range []struct {
		packet string
		files  []*os.File
		want   string // part of the error; "": none
	}{
		{"authenticated version=2 user=alice", nil, ""},
		{"authenticated version=2 user=", nil, "malformed"},
		{"authenticated version=2", nil, "malformed"},
		{"authenticated version=2 user=a user=b", nil, "malformed"},
		{"authenticated version=2 user=a uid=0", nil, "malformed"},
		{"authenticated version=2 user=a", one(link), "a descriptor"},
		{"authenticated user=a", nil, "restart sshfront"},
		{"authenticated version=1 user=a", nil, "restart sshfront"},
		{"authenticated version=3 user=a", nil, "restart sshfront"},
		{"session", nil, ""},
		{"session", one(link), "a descriptor"},
		{"session", one(null), "a descriptor"},
		{"session", []*os.File{link, link}, "a descriptor"},
		{"session user=a", nil, "malformed"},
		{"session user=a", one(link), "a descriptor"},
		{"mount", nil, "unknown verb"},
	} {
		m, err := capproto.DecodeMsg([]byte(c.packet))
		if err != nil {
			t.Fatal(err)
		}
		r, err := Decode(capproto.Packet{Msg: m, Files: c.files})
		if c.want == "" && (err != nil || r == nil) || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, %v", c.packet, r, err)
		}
	}
}
