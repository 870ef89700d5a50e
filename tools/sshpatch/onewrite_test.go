package main

import (
	"encoding/binary"
	"net"
	"slices"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"
)

// A writesConn keeps what each write sent.
type writesConn struct {
	net.Conn
	mu     sync.Mutex
	writes [][]byte
}

func (c *writesConn) Write(b []byte) (int, error) {
	c.mu.Lock()
	c.writes = append(c.writes, slices.Clone(b))
	c.mu.Unlock()
	return c.Conn.Write(b)
}

// plainMessages are the numbers of the messages in a write up to SSH_MSG_NEWKEYS,
// before which nothing is encrypted (RFC 4253, section 6), and more tells whether
// something follows.
func plainMessages(write []byte) (numbers []byte, more bool) {
	for len(write) > 5 {
		numbers = append(numbers, write[5])
		write = write[4+binary.BigEndian.Uint32(write):]
		if numbers[len(numbers)-1] == 21 {
			break
		}
	}
	return numbers, len(write) > 0
}

func TestTheAnswerToAKeyExchangeIsOneWrite(t *testing.T) {
	key := ed25519Signer(t)
	for kex, want := range map[string][]byte{
		"curve25519-sha256":                    {31, 21},
		"diffie-hellman-group14-sha256":        {31, 21},
		"diffie-hellman-group-exchange-sha256": {33, 21}, // its 31 is answered by the client
	} {
		ours, theirs := tcpPair(t)
		server := &writesConn{Conn: ours}
		done := make(chan bool)
		go func() {
			defer close(done)
			conf := &ssh.ServerConfig{NoClientAuth: true, Config: ssh.Config{KeyExchanges: []string{kex}}}
			conf.AddHostKey(key)
			if conn, _, _, err := ssh.NewServerConn(server, conf); err == nil {
				conn.Wait()
			}
		}()
		conn, _, _, err := ssh.NewClientConn(theirs, "", &ssh.ClientConfig{
			Config: ssh.Config{KeyExchanges: []string{kex}}, HostKeyCallback: ssh.InsecureIgnoreHostKey(),
		})
		if err != nil {
			t.Fatalf("%s: %v", kex, err)
		}
		conn.Close()
		<-done
		found := slices.ContainsFunc(server.writes[1:], func(w []byte) bool { // the first is the version
			got, extensions := plainMessages(w)
			return slices.Equal(got, want) && extensions
		})
		if !found {
			t.Errorf("%s: no write is the reply with SSH_MSG_NEWKEYS and SSH_MSG_EXT_INFO", kex)
		}
	}
}
