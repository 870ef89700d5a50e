package becomerecord

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// samples are records of each kind, good ones.
func samples() []Record {
	shell := Bound{
		Dir: "/home/alice", Path: "/bin/bash", Argv: []string{"-bash"}, Env: []string{"TERM=vt100", "EMPTY="},
		Umask: 0o22, FDs: []uint32{0, 1, 2},
	}
	limited, rooted, passed := shell, shell, shell
	limited.Limits = map[int]Limit{0: {1, 2}, 3: {8 << 20, ^uint64(0)}, 15: {0, 0}}
	limited.Argv = []string{"", "a", "", "b c"}
	rooted.Root, rooted.Dir, rooted.Env = &Root{"/srv/sftp", 1<<63 + 5, 12, MaxPTYs}, "/", nil
	rooted.FDs = []uint32{0, 1, 2, 3, 4}
	passed.FDs = []uint32{0, 1, 2, 3, 7, 1<<31 - 1}
	limited.TTY = &TTY{1<<63 + 7, 3}
	modules := shell
	modules.Process = Process{
		Context: "unconfined_u:unconfined_r:unconfined_t:s0-s0:c0.c1023", Keyring: "_ses.1", Mounts: &Mounts{"/proc/12/ns/mnt", 4, 4026531841},
		Inheritable: 1<<40 | 1<<13, Ambient: 1 << 13, TTYAudit: 3,
	}
	return []Record{
		{From: 990, UID: 1000, Groups: []uint32{1000, 27}, LoginUID: true},
		{From: 0, UID: 0, Groups: []uint32{0}},
		{From: noID - 1, UID: noID - 1, Groups: make([]uint32, MaxGroups)},
		{From: 990, UID: 1000, Groups: []uint32{1000}, Bound: &shell},
		{From: 990, UID: 1000, Groups: []uint32{1000, 27}, LoginUID: true, Bound: &limited},
		{From: 990, UID: 1000, Groups: []uint32{1000}, Bound: &rooted},
		{From: 990, UID: 1000, Groups: make([]uint32, MaxGroups), Bound: &passed},
		{From: 990, UID: 1000, Groups: []uint32{1000}, Bound: &modules},
	}
}

func TestARecordComesBack(t *testing.T) {
	for _, r := range samples() {
		b, err := r.Encode()
		if err != nil {
			t.Errorf("%+v: %v", r, err)
			continue
		}
		got, err := Parse(b)
		if err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("%+v came back as %+v, %v", r, got, err)
		}
	}
}

// bad are records that differ from a good one in one thing.
func bad() map[string]Record {
	m := map[string]Record{}
	record := func(name string, change func(*Record)) {
		r := samples()[0]
		change(&r)
		m[name] = r
	}
	bound := func(name string, change func(*Bound)) {
		r := samples()[6]
		r.Groups = r.Groups[:1]
		b := *r.Bound
		change(&b)
		r.Bound = &b
		m[name] = r
	}
	record("from nobody", func(r *Record) { r.From = noID })
	record("to nobody", func(r *Record) { r.UID = noID })
	record("no group", func(r *Record) { r.Groups = nil })
	record("nobody's group", func(r *Record) { r.Groups = []uint32{1, noID} })
	record("a group too many", func(r *Record) { r.Groups = make([]uint32, MaxGroups+1) })
	bound("no argv", func(b *Bound) { b.Argv = nil })
	bound("a NUL in argv", func(b *Bound) { b.Argv = []string{"a\x00b"} })
	bound("a string too many", func(b *Bound) { b.Argv = make([]string, MaxStrings) })
	bound("a root and no directory in it", func(b *Bound) {
		b.Dir, b.FDs, b.Root = "", []uint32{0, 1, 2, 3}, &Root{Path: "/srv", Dev: 1, Ino: 2}
	}) // without a root it is the redeemer's
	bound("a relative directory", func(b *Bound) { b.Dir = "home" })
	bound("a relative program", func(b *Bound) { b.Path = "sh" })
	bound("a program's path that is too long", func(b *Bound) { b.Path = "/" + strings.Repeat("x", MaxPath-1) })
	root := func(name string, change func(*Root)) {
		bound(name, func(b *Bound) {
			b.FDs, b.Root = []uint32{0, 1, 2, 3}, &Root{Path: "/srv", Dev: 1, Ino: 2}
			change(b.Root)
		})
	}
	root("a relative root", func(r *Root) { r.Path = "srv" })
	root("a root without a path", func(r *Root) { r.Path = "" })
	root("too many terminals", func(r *Root) { r.PTYs = MaxPTYs + 1 })
	bound("a root and descriptors with gaps", func(b *Bound) { b.Root = &Root{Path: "/srv"} })
	bound("a variable without a value", func(b *Bound) { b.Env = []string{"TERM"} })
	bound("a variable without a name", func(b *Bound) { b.Env = []string{"=x"} })
	bound("an empty variable", func(b *Bound) { b.Env = []string{""} })
	bound("a umask of more than modes", func(b *Bound) { b.Umask = 0o1000 })
	bound("a limit above its hard one", func(b *Bound) { b.Limits = map[int]Limit{6: {2, 1}} })
	bound("a limit of nothing", func(b *Bound) { b.Limits = map[int]Limit{16: {1, 1}} })
	bound("no standard descriptors", func(b *Bound) { b.FDs = []uint32{1, 2, 7} })
	bound("descriptors out of order", func(b *Bound) { b.FDs = []uint32{0, 1, 2, 7, 5} })
	bound("a descriptor twice", func(b *Bound) { b.FDs = []uint32{0, 1, 2, 7, 7} })
	bound("a descriptor too high", func(b *Bound) { b.FDs = []uint32{0, 1, 2, 7, 1 << 31} })
	bound("too many descriptors", func(b *Bound) {
		for i := range uint32(MaxFDs) {
			b.FDs = append(b.FDs, 1<<31-1-MaxFDs+i)
		}
	})
	bound("a context of two words", func(b *Bound) { b.Context = "unconfined (enforce)" })
	bound("a context that is not ASCII", func(b *Bound) { b.Context = "a:b:c\xff" })
	bound("a context that is too long", func(b *Bound) { b.Context = strings.Repeat("x", MaxContext) })
	bound("a keyring of two words", func(b *Bound) { b.Keyring = "_ses 1" })
	bound("a keyring with a long name", func(b *Bound) { b.Keyring = strings.Repeat("x", MaxKeyring) })
	bound("a mount namespace at a relative path", func(b *Bound) { b.Mounts = &Mounts{Path: "proc/1/ns/mnt"} })
	bound("a mount namespace without a path", func(b *Bound) { b.Mounts = &Mounts{} })
	bound("an ambient capability that is not inheritable", func(b *Bound) { b.Inheritable, b.Ambient = 1, 2 })
	bound("more of the audit than there is", func(b *Bound) { b.TTYAudit = 4 })
	bound("more than fits", func(b *Bound) { b.Env = []string{"A=" + strings.Repeat("x", MaxSize)} })
	return m
}

func TestWhatBecomeWouldRefuseIsNotEncoded(t *testing.T) {
	for name, r := range bad() {
		if _, err := r.Encode(); err == nil {
			t.Errorf("%s: is encoded", name)
		}
	}
}

func TestParseRefusesBytesThatNoRecordEncodesTo(t *testing.T) {
	good, _ := samples()[4].Encode()
	change := func(at int, v uint32) []byte {
		b := slices.Clone(good)
		binary.LittleEndian.PutUint32(b[at:], v)
		return b
	}
	for _, b := range [][]byte{
		nil, good[1:], good[:len(good)-1], good[:headerSize], append(slices.Clone(good), 0),
		change(0, 0), change(8, 0), change(12, 1<<4|1), change(52, 4), change(344, 1), change(352, 1), change(368, 1), change(48, 7), change(56, 1), change(72+16, 1), change(72+24, 1), change(12, 1|2),
	} {
		if r, err := Parse(b); err == nil {
			t.Errorf("%x is %+v", b, r)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, r := range samples() {
		if len(r.Groups) < 10 {
			b, _ := r.Encode()
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Parse(b)
		if err != nil {
			return
		}
		again, err := r.Encode()
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x is %+v, which is encoded as %x, %v", b, r, again, err)
		}
	})
}

// mutate changes a record in a way or two: a bit, a field, a length, the end.
func mutate(r *rand.Rand, b []byte) []byte {
	b = slices.Clone(b)
	for range 1 + r.IntN(2) {
		if len(b) < 4 {
			break
		}
		switch r.IntN(6) {
		case 0:
			b[r.IntN(len(b))] ^= 1 << r.IntN(8)
		case 1: // a field of the header
			fields := min(headerSize, len(b)) / 4
			binary.LittleEndian.PutUint32(b[4*r.IntN(fields):], []uint32{0, 1, 3, 16, noID, 1 << 31, r.Uint32N(64), r.Uint32()}[r.IntN(8)])
		case 2:
			b = b[:r.IntN(len(b))]
		case 3:
			b = append(b, make([]byte, 1+r.IntN(3))...)
		case 4: // behind the header
			if len(b) > headerSize {
				b[headerSize+r.IntN(len(b)-headerSize)] = []byte{0, '/', '=', 'x', 255}[r.IntN(5)]
			}
		case 5: // the size as it is
			if len(b) > 12 {
				binary.LittleEndian.PutUint32(b[8:], uint32(len(b)))
			}
		}
	}
	if len(b) > 12 && r.IntN(2) == 0 {
		binary.LittleEndian.PutUint32(b[8:], uint32(len(b)))
	}
	return b
}

// TestParseAndBecomeAgree gives the same records, good, bad and mutated, to
// Parse and to the checks of become.c, for each machine that it can be compiled
// for and run on here.
func TestParseAndBecomeAgree(t *testing.T) {
	var inputs [][]byte
	for _, r := range samples() {
		b, err := r.Encode()
		if err != nil {
			t.Fatal(err)
		}
		inputs = append(inputs, b)
	}
	good := len(inputs)
	r := rand.New(rand.NewPCG(1, 2))
	small := slices.DeleteFunc(slices.Clone(inputs), func(b []byte) bool { return len(b) > 4096 })
	for range 40000 {
		inputs = append(inputs, mutate(r, small[r.IntN(len(small))]))
	}
	for range 40 {
		inputs = append(inputs, mutate(r, inputs[r.IntN(good)]))
	}
	inputs = append(inputs, make([]byte, MaxSize), make([]byte, MaxSize+1))
	var stdin bytes.Buffer
	want := make([]byte, len(inputs))
	accepted := 0
	for i, b := range inputs {
		stdin.Write(binary.LittleEndian.AppendUint32(nil, uint32(len(b))))
		stdin.Write(b)
		want[i] = 'n'
		if _, err := Parse(b); err == nil {
			want[i] = 'y'
			accepted++
		}
	}
	if accepted < 1000 || accepted > len(inputs)-1000 {
		t.Errorf("%d of %d records are good: that tests one side only", accepted, len(inputs))
	}
	for _, m := range []struct{ cc, run string }{{"cc", ""}, {"aarch64-linux-gnu-gcc", "qemu-aarch64"}} {
		t.Run(m.cc, func(t *testing.T) {
			for _, p := range []string{m.cc, m.run} {
				if _, err := exec.LookPath(p); p != "" && err != nil {
					t.Skip(err)
				}
			}
			checker := filepath.Join(t.TempDir(), "check")
			build := exec.Command("../become/build", checker, "check")
			build.Env = append(os.Environ(), "CC="+m.cc)
			if out, err := build.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			c := exec.Command(checker)
			if m.run != "" {
				c = exec.Command(m.run, checker)
			}
			c.Stdin = bytes.NewReader(stdin.Bytes())
			got, err := c.Output()
			if err != nil || len(got) != len(want) {
				t.Fatalf("%d answers to %d records: %v", len(got), len(want), err)
			}
			differ := 0
			for i := range got {
				if got[i] != want[i] {
					if differ++; differ < 5 {
						_, err := Parse(inputs[i])
						t.Errorf("become says %c, Parse %v to %s", got[i], err, clip(inputs[i]))
					}
				}
			}
			if differ > 0 {
				t.Errorf("%d differ", differ)
			}
		})
	}
}

func clip(b []byte) string {
	if len(b) > 600 {
		return fmt.Sprintf("%x... (%d bytes)", b[:600], len(b))
	}
	return fmt.Sprintf("%x", b)
}
