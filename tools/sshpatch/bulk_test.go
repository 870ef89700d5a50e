package main

import (
	"io"
	"net"
	"runtime"
	"sync/atomic"
	"testing"

	"golang.org/x/crypto/ssh"
)

// A counter counts the writes to a connection, and the bytes that are read from it.
type counter struct {
	net.Conn
	writes, bytes atomic.Int64
}

func (c *counter) Write(b []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(b)
}

func (c *counter) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.bytes.Add(int64(n))
	return n, err
}

const warm = 16 << 20

// pour has a client send size bytes of data in a channel to a server, which reads
// them, after as many as warm. It returns how often the client wrote to its connection and
// the bytes that were allocated meanwhile, and how many bytes it got for all of the data:
// those for the first may come late.
func pour(t *testing.T, size int) (writes, answered int64, allocated uint64) {
	t.Helper()
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
	count := &counter{Conn: tcp}
	conn, chans, reqs, err := ssh.NewClientConn(count, addr, &ssh.ClientConfig{HostKeyCallback: ssh.InsecureIgnoreHostKey(), Config: ssh.Config{Ciphers: []string{"aes128-gcm@openssh.com"}}})
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
	answered = count.bytes.Load()
	send(warm)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	writes = count.writes.Load()
	send(size)
	runtime.ReadMemStats(&after)
	return count.writes.Load() - writes, count.bytes.Load() - answered, after.TotalAlloc - before.TotalAlloc
}

func TestAPacketIsWrittenInOnePiece(t *testing.T) {
	const packets = 512
	writes, _, _ := pour(t, packets*32<<10)
	if writes > packets+packets/8 {
		t.Errorf("%d writes for %d packets", writes, packets)
	}
}

func TestTheWindowIsOpenedForManyPacketsAtOnce(t *testing.T) {
	const packets = (warm + warm) / (32 << 10)
	const adjust = 4 + 16 + 16 // bytes of SSH_MSG_CHANNEL_WINDOW_ADJUST, with its length and tag
	if _, answered, _ := pour(t, warm); answered > (packets/8+2)*adjust {
		t.Errorf("%d bytes are sent for %d packets", answered, packets)
	}
}

func TestBulkDataMakesNoGarbage(t *testing.T) {
	const size = 64 << 20
	most := uint64(size / 4)
	if raceEnabled {
		most = size // sync.Pool drops some of what is put into it then
	}
	if _, _, allocated := pour(t, size); allocated > most {
		t.Errorf("%d bytes were allocated while %d were moved", allocated, size)
	}
}
