package sftp

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Each benchmark runs OpenSSH's servers and ours with the same packets by
// pipes, and reports what processor time the server took for one round.

func benchmarkServers(b *testing.B, prepare func(dir string), round func(s *peer, dir string)) {
	for _, p := range append(theirs(b), ours(b)) {
		b.Run(strings.ReplaceAll(p.name, " ", "_"), func(b *testing.B) {
			base := newBase(b)
			os.Mkdir(base.dir, 0o777)
			os.Chmod(base.dir, 0o777)
			if prepare != nil {
				prepare(base.dir)
			}
			var cpu time.Duration
			for b.Loop() {
				s := runPeer(b, p, base.dir, 0)
				s.send(hello())
				s.receive()
				round(s, base.dir)
				s.finish()
				cpu += s.cmd.ProcessState.UserTime() + s.cmd.ProcessState.SystemTime()
			}
			b.ReportMetric(float64(cpu.Microseconds())/float64(b.N)/1000, "cpu-ms/op")
		})
	}
}

// pipeline sends packets and has at most 64 that are not answered.
func pipeline(s *peer, n int, mk func(i int) []byte) {
	sent := make(chan bool, 64)
	go func() {
		for i := range n {
			sent <- true
			s.send(mk(i))
		}
	}()
	for range n {
		if _, err := s.receive(); err != nil {
			return
		}
		<-sent
	}
}

// BenchmarkPut and BenchmarkGet: 48 MiB in the sizes that OpenSSH's clients
// before and since 9.0 use.
func BenchmarkPut(b *testing.B) {
	for _, size := range []int{32 << 10, maxData} {
		data := strings.Repeat("d", size)
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			benchmarkServers(b, nil, func(s *peer, dir string) {
				s.send(packet(typeOpen, 1, "new", openWrite|openCreate|openTrunc, attrs{}))
				s.receive()
				pipeline(s, (48<<20)/size, func(i int) []byte { return packet(typeWrite, i, h(0), uint64(i*size), data) })
			})
		})
	}
}

func BenchmarkGet(b *testing.B) {
	for _, size := range []int{32 << 10, maxData} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			benchmarkServers(b, func(dir string) {
				os.WriteFile(filepath.Join(dir, "big"), make([]byte, 48<<20), 0o644)
			}, func(s *peer, dir string) {
				s.send(packet(typeOpen, 1, "big", openRead, attrs{}))
				s.receive()
				pipeline(s, (48<<20)/size, func(i int) []byte { return packet(typeRead, i, h(0), uint64(i*size), size) })
			})
		})
	}
}

// BenchmarkSmallFiles writes 5000 of 1 KiB as sftp(1) does.
func BenchmarkSmallFiles(b *testing.B) {
	data := strings.Repeat("d", 1024)
	benchmarkServers(b, nil, func(s *peer, dir string) {
		for i := range 5000 {
			name := fmt.Sprintf("f%d", i)
			for _, p := range [][]byte{packet(typeStat, i, name), packet(typeOpen, i, name, openWrite|openCreate|openTrunc, attrs{flags: attrPerm, perm: 0o644}), packet(typeWrite, i, h(0), uint64(0), data), packet(typeClose, i, h(0))} {
				s.send(p)
				s.receive()
			}
		}
	})
}

// BenchmarkListing lists 20000 files.
func BenchmarkListing(b *testing.B) {
	benchmarkServers(b, func(dir string) {
		for i := range 20000 {
			os.WriteFile(filepath.Join(dir, fmt.Sprintf("file-%d", i)), nil, 0o644)
		}
	}, func(s *peer, dir string) {
		s.send(packet(typeOpendir, 1, "."))
		s.receive()
		for {
			s.send(packet(typeReaddir, 1, h(0)))
			if r, err := s.receive(); err != nil || r[0] == typeStatus {
				return
			}
		}
	})
}

// BenchmarkStart is a session in which nothing is asked.
func BenchmarkStart(b *testing.B) {
	benchmarkServers(b, nil, func(s *peer, dir string) {})
}
