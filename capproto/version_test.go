package capproto

import (
	"net"
	"path/filepath"
	"strconv"
	"testing"
)

// TestAClientRefusesAFactotumOfAnotherVersion and says which of the two is older.
func TestAClientRefusesAFactotumOfAnotherVersion(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rpc")
	ln, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	replies := make(chan Msg, 1)
	go func() {
		for {
			u, err := ln.AcceptUnix()
			if err != nil {
				return
			}
			c := NewConn(u, MaxRequest)
			if p, err := c.Recv(); err != nil || p.Get("version") != strconv.Itoa(Version) {
				t.Errorf("the client asks %v, %v", p, err)
			}
			c.Send(<-replies)
			c.Close()
		}
	}()
	for _, c := range []struct {
		reply Msg
		want  string
	}{
		{NewMsg(VerbOK, "version", strconv.Itoa(Version)), ""},
		{NewMsg(VerbOK), "factotum is older than login; restart factotum"},
		{NewMsg(VerbOK, "version", "1"), "factotum is older than login; restart factotum"},
		{NewMsg(VerbOK, "version", strconv.Itoa(Version+1)), "login is older than factotum; log in again; if that does not help, restart the console's getty"},
		// So does a factotum from before there were versions refuse the attribute.
		{(&Error{Code: CodeProtocol, Text: "not an rpc packet: start does not take version="}).Msg(), "factotum is older than login; restart factotum"},
		{(&VersionError{"pam", 1, 2}).Reply().Msg(), "login is older than factotum; log in again; if that does not help, restart the console's getty"},
		{(&Error{Code: CodeDenied, Text: "no"}).Msg(), "no"},
	} {
		client, err := Dial(path)
		if err != nil {
			t.Fatal(err)
		}
		replies <- c.reply
		_, err = client.Start(Start{User: "alice"})
		if err == nil && c.want != "" || err != nil && err.Error() != c.want {
			t.Errorf("%v: %v", c.reply, err)
		}
		client.Close()
	}
	if e := (&VersionError{"ssh", 0, 1}).Error(); e != "sshfront is older than factotum; restart it" {
		t.Error(e)
	}
	if e := (&VersionError{"other", 2, 1}).Error(); e != "factotum is older than the front end; restart factotum" {
		t.Error(e)
	}
}
