package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"p9auth/capproto"
)

// fuzz writes rubbish to a device and says "quiet" if there were but errors.
func fuzz(file string) {
	runtime.LockOSThread()
	rounds := 20000
	if short() {
		rounds = 4000
	}
	fd, err := unix.Open(file, unix.O_WRONLY, 0)
	if err != nil {
		fmt.Println("open:", err)
		return
	}
	uid := rawUID()
	rnd := rand.New(rand.NewPCG(1, 2))
	// Two pages, the second of which faults.
	const page = 4096
	mem, err := unix.Mmap(-1, 0, 20*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		fmt.Println("mmap:", err)
		return
	}
	if err := unix.Mprotect(mem[19*page:], unix.PROT_NONE); err != nil {
		fmt.Println("mprotect:", err)
		return
	}
	base := uintptr(unsafe.Pointer(&mem[0]))
	alphabet := []byte("0123456789@@@@,,,AZaz-_=\x00\n +")
	template := fmt.Sprintf("%d@0@0,1@%s", uid, strings.Repeat("A", 43))
	for i := range rounds {
		var ptr, n uintptr
		switch rnd.IntN(8) {
		case 0: // faults at once
			ptr, n = base+19*page, uintptr(rnd.IntN(70000))
		case 1: // faults on the way
			ptr, n = base+19*page-uintptr(rnd.IntN(40)), uintptr(40+rnd.IntN(65000))
		case 2: // no address at all
			ptr, n = uintptr(rnd.Uint64()), uintptr(rnd.IntN(70000))
		case 3: // a huge count
			ptr, n = base, uintptr(rnd.Uint64()>>uint(rnd.IntN(40)))
		case 4: // any bytes
			n = uintptr(rnd.IntN(200))
			for j := range n {
				mem[j] = byte(rnd.Uint32())
			}
			ptr = base
		case 5: // the right letters
			n = uintptr(rnd.IntN(120))
			for j := range n {
				mem[j] = alphabet[rnd.IntN(len(alphabet))]
			}
			ptr = base
		default: // nearly a capability
			b := []byte(template)
			for range rnd.IntN(4) {
				b[rnd.IntN(len(b))] = alphabet[rnd.IntN(len(alphabet))]
			}
			if rnd.IntN(4) == 0 {
				b = b[:rnd.IntN(len(b))]
			}
			n, ptr = uintptr(copy(mem, b)), base
		}
		r, _, e := unix.Syscall(unix.SYS_WRITE, uintptr(fd), ptr, n)
		switch e {
		case unix.EINVAL, unix.EFAULT, unix.EPERM, unix.ENOSPC, unix.ENOENT:
		case 0:
			// Nothing was written, or any 32 bytes to caphash.
			if r != 0 && !(file == caphash && r == 32) {
				fmt.Printf("round %d: %d bytes are taken\n", i, r)
				return
			}
		default:
			fmt.Printf("round %d: %v\n", i, e)
			return
		}
		if rawUID() != uid {
			fmt.Printf("round %d: the uid is %d\n", i, rawUID())
			return
		}
	}
	for _, nr := range []uintptr{unix.SYS_READ, unix.SYS_PREAD64, unix.SYS_LSEEK, unix.SYS_IOCTL, unix.SYS_FTRUNCATE, unix.SYS_MMAP} {
		if _, _, e := unix.Syscall6(nr, uintptr(fd), base, 10, 0, uintptr(fd), 0); e == 0 && nr != unix.SYS_MMAP {
			fmt.Printf("system call %d works\n", nr)
			return
		}
	}
	fmt.Println("quiet")
}

// stress: writers make capabilities, users redeem them, as fast as they can.
func stress(t *T) {
	d := time.Minute
	if short() {
		d = 10 * time.Second
	}
	end := time.Now().Add(d)
	caps := make(chan string, 64)
	var made, used, refused atomic.Int64
	var writers, users sync.WaitGroup
	var mu sync.Mutex
	for range 8 {
		writers.Go(func() {
			for time.Now().Before(end) {
				c, err := capproto.New(capproto.Grant{From: 1500, To: 2000, Groups: []uint32{2000, 2001, 2002}})
				if err != nil {
					panic(err)
				}
				h := c.Hash()
				if _, err := hash.Write(h[:]); err != nil {
					mu.Lock()
					t.Errorf("write: %v", err)
					mu.Unlock()
					return
				}
				made.Add(1)
				caps <- c.Reveal()
			}
		})
	}
	for range 8 {
		users.Go(func() {
			// A thread that has redeemed is another user's: the process goes
			// on with the next one. Each process redeems up to 100.
			for {
				c := exec.Command("/proc/self/exe", "stress")
				in, err := c.StdinPipe()
				if err != nil {
					panic(err)
				}
				out, _ := c.StdoutPipe()
				c.Stderr = os.Stderr
				if err := c.Start(); err != nil {
					mu.Lock()
					t.Errorf("start: %v", err)
					mu.Unlock()
					return
				}
				n := 0
				for s := range caps {
					io.WriteString(in, s+"\n")
					if n++; n == 100 {
						break
					}
				}
				in.Close()
				b, _ := io.ReadAll(out)
				c.Wait()
				for _, l := range strings.Fields(string(b)) {
					switch l {
					case "ok":
						used.Add(1)
					case "EPERM":
						refused.Add(1)
					default:
						mu.Lock()
						t.Errorf("a user says %s", l)
						mu.Unlock()
					}
				}
				if n < 100 {
					return
				}
			}
		})
	}
	writers.Wait()
	close(caps)
	users.Wait()
	fmt.Printf("p9: note stress for %v: %d made, %d redeemed, %d second tries refused\n", d, made.Load(), used.Load(), refused.Load())
	if used.Load() != made.Load() || refused.Load() != used.Load() || made.Load() == 0 {
		t.Errorf("%d made, %d redeemed, %d refused the second time", made.Load(), used.Load(), refused.Load())
	}
	if n := parameter(t, "entries"); n != "0" {
		// What other tests have left expires.
		fmt.Printf("p9: note %s entries are left of earlier tests\n", n)
	}
}

// stressUser redeems each line of standard input twice, on a thread of its
// own that becomes uid 1500 first.
func stressUser() {
	b, _ := io.ReadAll(os.Stdin)
	for s := range strings.Lines(string(b)) {
		done := make(chan string)
		go func() {
			runtime.LockOSThread() // and never unlock: the thread ends with us
			unix.RawSyscall(unix.SYS_SETRESUID, 1500, 1500, 1500)
			fd, err := unix.Open(capuser, unix.O_WRONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				done <- errName(err)
				return
			}
			defer unix.Close(fd)
			_, err = unix.Write(fd, []byte(s))
			if err == nil && rawUID() != 2000 {
				err = unix.EBADMSG
			}
			_, again := unix.Write(fd, []byte(s))
			done <- errName(err) + " " + errName(again)
		}()
		fmt.Println(<-done)
	}
}

// unloadRace loads and unloads while others open and write.
func unloadRace(t *T) {
	stop := make(chan bool)
	var wg sync.WaitGroup
	for _, file := range []string{capuser, caphash, capuser, caphash} {
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				// A pause now and then: without it a slow machine finds no
				// moment at which nobody has a file open.
				if n%8 == 0 {
					time.Sleep(time.Millisecond)
				}
				if fd, err := unix.Open(file, unix.O_WRONLY, 0); err == nil {
					unix.Write(fd, []byte(strings.Repeat("x", 32)))
					unix.Close(fd)
				}
			}
		})
	}
	end := sync.OnceFunc(func() { close(stop); wg.Wait() })
	defer end()
	rounds := 100
	if short() {
		rounds = 30
	}
	loaded, busy := 0, 0
	for range rounds {
		if err := load(""); err != nil {
			t.Errorf("%v", err)
			break
		}
		loaded++
		for begun := time.Now(); ; {
			err := unload()
			if err == nil {
				break
			}
			if err != unix.EWOULDBLOCK {
				t.Fatalf("unload: %v", err)
			}
			if time.Since(begun) > time.Minute {
				t.Fatalf("the module is in use at every try to unload it, for a minute")
			}
			busy++
		}
	}
	end()
	fmt.Printf("p9: note loaded %d times, %d tries to unload found it in use\n", loaded, busy)
	t.must(load(""))
}
