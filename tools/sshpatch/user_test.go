package main

import (
	"errors"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// connect runs the server's and the client's side of an SSH connection, and
// returns what each of them gets. Both ends are closed when the test ends.
func connect(t *testing.T, server *ssh.ServerConfig, client *ssh.ClientConfig) (*ssh.ServerConn, ssh.Conn, error, error) {
	t.Helper()
	server.AddHostKey(ed25519Signer(t))
	if client.HostKeyCallback == nil {
		client.HostKeyCallback = ssh.InsecureIgnoreHostKey()
	}
	ours, theirs := tcpPair(t)
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	type result struct {
		conn *ssh.ServerConn
		err  error
	}
	done := make(chan result, 1)
	go func() {
		conn, chans, reqs, err := ssh.NewServerConn(ours, server)
		if err == nil {
			go ssh.DiscardRequests(reqs)
			go refuse(chans)
		} else {
			ours.Close()
		}
		done <- result{conn, err}
	}()
	conn, chans, reqs, err := ssh.NewClientConn(theirs, "test", client)
	if err == nil {
		go ssh.DiscardRequests(reqs)
		go refuse(chans)
	} else {
		theirs.Close()
	}
	r := <-done
	return r.conn, conn, r.err, err
}

func refuse(chans <-chan ssh.NewChannel) {
	for c := range chans {
		c.Reject(ssh.Prohibited, "")
	}
}

// Before the user is known nothing is offered. UserCallback gives alice a
// password, which she may try twice, and a banner, and bob nothing.
func TestTheConfigurationFollowsTheUser(t *testing.T) {
	for _, user := range []string{"alice", "bob"} {
		t.Run(user, func(t *testing.T) {
			var calls []string
			var banner string
			tries := 0
			server := &ssh.ServerConfig{
				MaxAuthTries: 6,
				PublicKeyCallback: func(ssh.ConnMetadata, ssh.PublicKey) (*ssh.Permissions, error) {
					return nil, errors.New("offered to nobody")
				},
				UserCallback: func(m ssh.ConnMetadata, c *ssh.ServerConfig) {
					calls = append(calls, m.User())
					c.PublicKeyCallback = nil
					c.KeyboardInteractiveCallback = func(ssh.ConnMetadata, ssh.KeyboardInteractiveChallenge) (*ssh.Permissions, error) {
						return nil, errors.New("no")
					}
					if m.User() != "alice" {
						return
					}
					c.MaxAuthTries = 2
					c.BannerCallback = func(ssh.ConnMetadata) string { return "hello" }
					c.PasswordCallback = func(ssh.ConnMetadata, []byte) (*ssh.Permissions, error) {
						tries++
						return nil, errors.New("no")
					}
				},
			}
			_, _, serverErr, clientErr := connect(t, server, &ssh.ClientConfig{
				User:           user,
				BannerCallback: func(s string) error { banner = s; return nil },
				Auth: []ssh.AuthMethod{ssh.RetryableAuthMethod(ssh.PasswordCallback(func() (string, error) {
					return "guess", nil
				}), 5)},
			})
			if serverErr == nil || clientErr == nil {
				t.Fatal("logged in")
			}
			if !slices.Equal(calls, []string{user}) {
				t.Errorf("called for %q", calls)
			}
			wantTries, wantBanner := 0, ""
			if user == "alice" {
				wantTries, wantBanner = 2, "hello"
			}
			if tries != wantTries || banner != wantBanner {
				t.Errorf("%d tries, banner %q; %v", tries, banner, serverErr)
			}
		})
	}
}

// The client looks at the host key once for each key exchange.
func TestAKeyExchangeOnRequest(t *testing.T) {
	var checked atomic.Int32
	conn, c, serverErr, clientErr := connect(t, &ssh.ServerConfig{NoClientAuth: true}, &ssh.ClientConfig{
		User:            "alice",
		HostKeyCallback: func(string, net.Addr, ssh.PublicKey) error { checked.Add(1); return nil },
	})
	if serverErr != nil || clientErr != nil {
		t.Fatal(serverErr, clientErr)
	}
	for want := int32(2); want < 4; want++ {
		conn.RequestKeyExchange()
		for end := time.Now().Add(10 * time.Second); checked.Load() < want; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%d key exchanges, not %d", checked.Load(), want)
			}
		}
		// The connection goes on with the new keys.
		if _, _, err := c.SendRequest("ping", true, nil); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWhoFailsTooOftenIsToldSoInOpenSSHsWords(t *testing.T) {
	_, _, _, err := connect(t, &ssh.ServerConfig{
		MaxAuthTries:     1,
		PasswordCallback: func(ssh.ConnMetadata, []byte) (*ssh.Permissions, error) { return nil, errors.New("no") },
	}, &ssh.ClientConfig{User: "alice", Auth: []ssh.AuthMethod{ssh.Password("guess")}})
	if err == nil || !strings.HasSuffix(err.Error(), ", reason 2: \"Too many authentication failures\"") {
		t.Errorf("the client: %v", err)
	}
}
