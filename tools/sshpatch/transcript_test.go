package main

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// An exchangeKey is a host key, or its certificate, that wants transcripts.
type exchangeKey struct {
	ssh.AlgorithmSigner
	shown ssh.PublicKey
	err   error

	mu          sync.Mutex
	transcripts [][]byte
	hashes      []crypto.Hash
}

func newExchangeKey(t *testing.T) *exchangeKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return &exchangeKey{AlgorithmSigner: s.(ssh.AlgorithmSigner), shown: s.PublicKey()}
}

func (k *exchangeKey) PublicKey() ssh.PublicKey { return k.shown }

func (k *exchangeKey) Sign(io.Reader, []byte) (*ssh.Signature, error) {
	return nil, errors.New("asked to sign a hash")
}

func (k *exchangeKey) SignWithAlgorithm(io.Reader, []byte, string) (*ssh.Signature, error) {
	return nil, errors.New("asked to sign a hash")
}

func (k *exchangeKey) SignExchange(transcript []byte, hash crypto.Hash, alg string) (*ssh.Signature, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.transcripts = append(k.transcripts, bytes.Clone(transcript))
	k.hashes = append(k.hashes, hash)
	if k.err != nil {
		return nil, k.err
	}
	h := hash.New()
	h.Write(transcript)
	return k.AlgorithmSigner.SignWithAlgorithm(rand.Reader, h.Sum(nil), alg)
}

// The client verifies the signature, so that the hash of the transcript is the
// exchange hash.
func TestAHostKeyIsGivenTheTranscriptOfEachKeyExchange(t *testing.T) {
	algorithms := ssh.SupportedAlgorithms()
	for _, kex := range append(algorithms.KeyExchanges, ssh.InsecureKeyExchangeDH14SHA1) {
		for _, withCert := range []bool{false, true} {
			key := newExchangeKey(t)
			if withCert {
				cert := &ssh.Certificate{Key: key.AlgorithmSigner.PublicKey(), CertType: ssh.HostCert, ValidBefore: ssh.CertTimeInfinity}
				if err := cert.SignCert(rand.Reader, key.AlgorithmSigner); err != nil {
					t.Fatal(err)
				}
				key.shown = cert
			}
			sc := &ssh.ServerConfig{NoClientAuth: true, ServerVersion: "SSH-2.0-server"}
			conn, c, sid := exchangeKeys(t, sc, key, kex)
			h := key.hashes[0].New()
			h.Write(key.transcripts[0])
			if !bytes.Equal(h.Sum(nil), sid) {
				t.Errorf("%s: the hash of the transcript is not the session id", kex)
			}
			var fields struct {
				VC, VS     string
				IC, IS, KS []byte
				Values     []byte `ssh:"rest"`
			}
			if err := ssh.Unmarshal(key.transcripts[0], &fields); err != nil {
				t.Fatal(err)
			}
			if fields.VC != "SSH-2.0-client" || fields.VS != "SSH-2.0-server" || fields.IC[0] != 20 || fields.IS[0] != 20 || !bytes.Equal(fields.KS, key.shown.Marshal()) {
				t.Errorf("%s: the transcript begins with %+v", kex, fields)
			}
			if strings.HasSuffix(kex, "384") != (key.hashes[0] == crypto.SHA384) || strings.HasSuffix(kex, "sha1") != (key.hashes[0] == crypto.SHA1) {
				t.Errorf("%s: hash %v", kex, key.hashes[0])
			}
			conn.RequestKeyExchange()
			waitFor(t, func() bool {
				key.mu.Lock()
				defer key.mu.Unlock()
				return len(key.transcripts) == 2
			})
			if _, _, err := c.SendRequest("ping", true, nil); err != nil {
				t.Errorf("%s: after the second: %v", kex, err)
			}
			c.Close()
		}
	}
	// A key that refuses ends the connection.
	key := newExchangeKey(t)
	key.err = errors.New("no")
	if server, _, err := tryExchange(t, &ssh.ServerConfig{NoClientAuth: true}, key, ssh.KeyExchangeCurve25519); err == nil || server != nil {
		t.Error("the exchange goes on without a signature")
	}
}

func TestTheCookieOfEachKeyExchangeIsTheCallbacks(t *testing.T) {
	var n atomic.Uint32
	key := newExchangeKey(t)
	sc := &ssh.ServerConfig{NoClientAuth: true, KexCookie: func() (cookie [16]byte, err error) {
		cookie[0], cookie[15] = byte(n.Add(1)), 0xaa
		if cookie[0] == 4 {
			err = errors.New("no cookie")
		}
		return cookie, err
	}}
	conn, c, _ := exchangeKeys(t, sc, key, ssh.KeyExchangeCurve25519)
	for want := uint32(2); want < 4; want++ {
		conn.RequestKeyExchange()
		waitFor(t, func() bool { return n.Load() == want })
		if _, _, err := c.SendRequest("ping", true, nil); err != nil {
			t.Fatal(err)
		}
	}
	key.mu.Lock()
	for i, b := range key.transcripts {
		cookie := [16]byte{byte(i + 1), 15: 0xaa}
		if !bytes.Contains(b, append([]byte{20}, cookie[:]...)) {
			t.Errorf("exchange %d does not have its cookie", i)
		}
	}
	key.mu.Unlock()
	// Without a cookie the connection ends.
	conn.RequestKeyExchange()
	if err := c.Wait(); err == nil {
		t.Error("the connection goes on")
	}
}

func waitFor(t *testing.T, f func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not come")
		}
	}
}

// exchangeKeys connects by that method, and returns both ends.
func exchangeKeys(t *testing.T, sc *ssh.ServerConfig, key ssh.Signer, kex string) (server, client ssh.Conn, sid []byte) {
	t.Helper()
	server, client, err := tryExchange(t, sc, key, kex)
	if err != nil {
		t.Fatalf("%s: %v", kex, err)
	}
	return server, client, client.SessionID()
}

func tryExchange(t *testing.T, sc *ssh.ServerConfig, key ssh.Signer, kex string) (server, client ssh.Conn, err error) {
	t.Helper()
	sc.KeyExchanges = []string{kex}
	sc.AddHostKey(key)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ended := make(chan error, 1)
	go func() {
		defer close(ended)
		nc, err := l.Accept()
		if err != nil {
			ended <- err
			return
		}
		conn, chans, reqs, err := ssh.NewServerConn(nc, sc)
		if err != nil {
			nc.Close()
			ended <- err
			return
		}
		server = conn
		go ssh.DiscardRequests(reqs)
		go func() {
			for n := range chans {
				n.Reject(ssh.Prohibited, "no")
			}
		}()
	}()
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	client, chans, reqs, clientErr := ssh.NewClientConn(nc, "x", &ssh.ClientConfig{
		User: "alice", ClientVersion: "SSH-2.0-client", HostKeyCallback: ssh.InsecureIgnoreHostKey(), Config: ssh.Config{KeyExchanges: []string{kex}},
	})
	serverErr := <-ended
	if clientErr != nil || serverErr != nil {
		return nil, nil, errors.Join(clientErr, serverErr)
	}
	go ssh.DiscardRequests(reqs)
	go func() {
		for n := range chans {
			n.Reject(ssh.Prohibited, "no")
		}
	}()
	return server, client, nil
}
