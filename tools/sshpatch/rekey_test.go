package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// serve serves one client, without authentication. It asks for new keys after threshold
// bytes, and on each channel it writes as many as the channel's type says, in pieces of
// that size.
func serve(t *testing.T, threshold uint64, piece int, size func(channelType string) int) (addr string) {
	t.Helper()
	return serveChannels(t, threshold, func(channelType string, ch ssh.Channel) {
		b := make([]byte, piece)
		for range size(channelType) / len(b) {
			if _, err := ch.Write(b); err != nil {
				return
			}
		}
		ch.CloseWrite()
		ch.Close()
	})
}

// serveChannels serves one client, without authentication, with a goroutine for each
// channel.
func serveChannels(t *testing.T, threshold uint64, serve func(channelType string, ch ssh.Channel)) (addr string) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		conf := &ssh.ServerConfig{NoClientAuth: true, Config: ssh.Config{RekeyThreshold: threshold}}
		conf.AddHostKey(signer)
		_, chans, reqs, err := ssh.NewServerConn(c, conf)
		if err != nil {
			return
		}
		go ssh.DiscardRequests(reqs)
		for n := range chans {
			ch, reqs, err := n.Accept()
			if err != nil {
				return
			}
			go ssh.DiscardRequests(reqs)
			go serve(n.ChannelType(), ch)
		}
	}()
	return l.Addr().String()
}

// Channels that are busy while keys are exchanged hold nobody up for ever:
// the library's read loop, which answers a channel's close, must not wait for a
// place among the packets that wait for the end of the exchange it has to read.
func TestBusyChannelsWhileKeysAreExchanged(t *testing.T) {
	const downloads, each, small = 12, 4 << 20, 150
	addr := serve(t, 256<<10, 4<<10, func(channelType string) int {
		if channelType == "big" {
			return each
		}
		return 0
	})
	c, err := ssh.Dial("tcp", addr, &ssh.ClientConfig{HostKeyCallback: ssh.InsecureIgnoreHostKey(), Config: ssh.Config{RekeyThreshold: 1 << 30}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var moved atomic.Int64 // bytes, and channels that were opened
	var wg sync.WaitGroup
	for range downloads {
		wg.Go(func() {
			ch, reqs, err := c.OpenChannel("big", nil)
			if err != nil {
				t.Error(err)
				return
			}
			go ssh.DiscardRequests(reqs)
			if n, err := io.Copy(progress{&moved}, ch); n != each || err != nil {
				t.Errorf("%d bytes, %v", n, err)
			}
		})
	}
	for range 4 {
		wg.Go(func() {
			for range small {
				ch, reqs, err := c.OpenChannel("small", nil)
				if err != nil {
					t.Error(err)
					return
				}
				go ssh.DiscardRequests(reqs)
				ch.Close()
				moved.Add(1)
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for before := int64(-1); ; {
		select {
		case <-done:
			return
		case <-time.After(10 * time.Second):
		}
		now := moved.Load()
		if now == before {
			t.Error("the connection hangs")
			c.Close()
			<-done
			return
		}
		before = now
	}
}

// progress counts what is written to it.
type progress struct{ n *atomic.Int64 }

func (p progress) Write(b []byte) (int, error) {
	p.n.Add(int64(len(b)))
	return len(b), nil
}

// Data that a writer had at hand during a key exchange counts for the next one.
func TestTheThresholdCountsWhatWaitedForNewKeys(t *testing.T) {
	const threshold, sent = 256 << 10, 16 << 20
	addr := serve(t, threshold, 32<<10, func(string) int { return sent })
	var exchanges atomic.Int64 // the client looks at the host key once for each
	c, err := ssh.Dial("tcp", addr, &ssh.ClientConfig{
		HostKeyCallback: func(string, net.Addr, ssh.PublicKey) error { exchanges.Add(1); return nil }, Config: ssh.Config{RekeyThreshold: 1 << 30}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ch, reqs, err := c.OpenChannel("big", nil)
	if err != nil {
		t.Fatal(err)
	}
	go ssh.DiscardRequests(reqs)
	n, err := io.Copy(io.Discard, ch)
	if got := exchanges.Load(); err != nil || n != sent || got < sent/threshold*3/4 {
		t.Errorf("%d bytes, %d key exchanges, %v; a threshold has %d bytes", n, got, err, threshold)
	}
}

// A client that has all it wanted ends the connection when its last channel is closed: a
// key exchange that is due comes before that.
func TestTheLastDataThatReachTheThresholdAreFollowedByAKeyExchange(t *testing.T) {
	const threshold = 64 << 10
	for range 50 {
		addr := serve(t, threshold, 32<<10, func(string) int { return threshold })
		var exchanges atomic.Int64
		c, err := ssh.Dial("tcp", addr, &ssh.ClientConfig{
			HostKeyCallback: func(string, net.Addr, ssh.PublicKey) error { exchanges.Add(1); return nil }, Config: ssh.Config{RekeyThreshold: 1 << 30}})
		if err != nil {
			t.Fatal(err)
		}
		ch, reqs, err := c.OpenChannel("big", nil)
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, ch)
		ssh.DiscardRequests(reqs) // until the channel is closed
		if got := exchanges.Load(); n != threshold || err != nil || got < 2 {
			t.Errorf("%d bytes, %v; %d key exchanges before the channel is closed", n, err, got)
		}
		c.Close()
	}
}
