package main

import (
	"io"
	"net"
	"runtime"
	"sync/atomic"
	"testing"

	"golang.org/x/crypto/ssh"
)

// A writeCounter counts the writes to a connection.
type writeCounter struct {
	net.Conn
	n atomic.Int64
}

func (c *writeCounter) Write(b []byte) (int, error) {
	c.n.Add(1)
	return c.Conn.Write(b)
}

// pour has a client send size bytes of data in a channel to a server, which reads
// them. It returns what the client wrote to its connection and the bytes that were
// allocated meanwhile.
func pour(t *testing.T, size int) (writes int64, allocated uint64) {
	t.Helper()
	const warm = 16 << 20
	read := make(chan struct{})
	addr := serveChannels(t, 0, func(_ string, ch ssh.Channel) {
		b := make([]byte, 64<<10)
		for _, n := range []int64{warm, int64(size)} {
			io.CopyBuffer(struct{ io.Writer }{io.Discard}, io.LimitReader(ch, n), b)
			read <- struct{}{}
		}
	})
	tcp, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	counter := &writeCounter{Conn: tcp}
	conn, chans, reqs, err := ssh.NewClientConn(counter, addr, &ssh.ClientConfig{HostKeyCallback: ssh.InsecureIgnoreHostKey(), Config: ssh.Config{Ciphers: []string{"aes128-gcm@openssh.com"}}})
	if err != nil {
		t.Fatal(err)
	}
	c := ssh.NewClient(conn, chans, reqs)
	defer c.Close()
	ch, creqs, err := c.OpenChannel("sink", nil)
	if err != nil {
		t.Fatal(err)
	}
	go ssh.DiscardRequests(creqs)
	piece := make([]byte, 32<<10)
	send := func(n int) {
		for range n / len(piece) {
			if _, err := ch.Write(piece); err != nil {
				t.Fatal(err)
			}
		}
		<-read
	}
	send(warm)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	n := counter.n.Load()
	send(size)
	n = counter.n.Load() - n
	runtime.ReadMemStats(&after)
	return n, after.TotalAlloc - before.TotalAlloc
}

func TestAPacketIsWrittenInOnePiece(t *testing.T) {
	const packets = 512
	writes, _ := pour(t, packets*32<<10)
	if writes > packets+packets/8 {
		t.Errorf("%d writes for %d packets", writes, packets)
	}
}

func TestBulkDataMakesNoGarbage(t *testing.T) {
	const size = 64 << 20
	most := uint64(size / 4)
	if raceEnabled {
		most = size // sync.Pool drops some of what is put into it then
	}
	if _, allocated := pour(t, size); allocated > most {
		t.Errorf("%d bytes were allocated while %d were moved", allocated, size)
	}
}
