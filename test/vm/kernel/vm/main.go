// Vm boots Debian's cloud kernels in qemu, by software emulation, with the
// module p9auth and the suite built for it, and has everything tried that
// needs the real device: `make vm-test` runs it.
//
// It fetches the kernels (test/vm/kernel/fetch), builds the module against their
// headers, packs an initramfs of the suite and of files of this machine, and
// boots it. The guest's init is test/vm/kernel/guest, which says on the first
// serial port what it finds; at the second one sits a person, played by
// console.go. Everything is in build/vm; nothing of the host is changed, and
// root is not needed. With -faults, test/faults runs there instead, in a testbed:
// `make test-faults-device`.
//
// The exit status is 0 only if every claim held on every kernel.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

func main() {
	short := flag.Bool("short", false, "cut the stress and the fuzz down")
	kernels := flag.String("kernels", "6.1,6.12", "the kernels to boot: those of test/vm/kernel/fetch, and those of test/vm/kernel/grantid")
	slow := flag.Int64("slow", 1, "allow a loaded machine so many times the time")
	faults := flag.String("faults", "", "run test/faults instead, with these arguments, such as '-faults 100 -ways ssh' (6.1 only)")
	verbose := flag.Bool("v", false, "show the guest's console")
	flag.Parse()
	patience *= time.Duration(*slow)
	limit *= time.Duration(*slow)
	if *faults != "" {
		limit = 24 * time.Hour
	}
	top, err := os.Getwd()
	if err == nil {
		err = missing(*kernels)
	}
	if err != nil {
		fatal(err)
	}
	b := &builder{top: top, dir: filepath.Join(top, "build", "vm"), faults: *faults}
	names := strings.Split(*kernels, ",")
	if err := b.prepare(names); err != nil {
		fatal(err)
	}
	passed, failed := 0, 0
	for _, v := range names {
		start := time.Now()
		r, err := b.boot(v, *short, *verbose)
		if err != nil {
			r.fail(err.Error())
		}
		passed, failed = passed+r.passed, failed+len(r.failed)
		fmt.Printf("Linux %s (%s): %d passed, %d failed, %.0f seconds\n", v, b.release(v), r.passed, len(r.failed), time.Since(start).Seconds())
	}
	fmt.Printf("vm-test: %d passed, %d failed\n", passed, failed)
	if failed > 0 || passed == 0 {
		os.Exit(1)
	}
}

func fatal(err error) {
	fmt.Fprintf(os.Stderr, "vm-test: %v\n", err)
	os.Exit(1)
}

// missing names a program that has to be installed first.
func missing(kernels string) error {
	need := []string{"qemu-system-x86_64", "gcc-12", "sparse", "apt-get", "dpkg-deb"}
	if strings.Contains(kernels, "arm64-") {
		need = append(need, "qemu-system-aarch64", "aarch64-linux-gnu-gcc")
	}
	for _, p := range need {
		if _, err := exec.LookPath(p); err != nil {
			return fmt.Errorf("%s is missing: scripts/deps vm (or arm64) installs it", p)
		}
	}
	return nil
}

// A result is what came of one kernel.
type result struct {
	passed int
	failed []string
}

func (r *result) ok(what string) {
	r.passed++
	fmt.Printf("  ok   %s\n", what)
}

func (r *result) fail(what string) {
	r.failed = append(r.failed, what)
	fmt.Printf("  FAIL %s\n", what)
}

// patience is how long a guest may be silent, and limit how long it may take.
// The stress is silent for a minute.
// On a loaded machine, -slow multiplies both.
var (
	patience = 4 * time.Minute
	limit    = 15 * time.Minute
)

// A machine is what qemu emulates.
type machine struct {
	argv            []string
	cmdline         string // of the kernel: its consoles
	second, chardev string // qemu's arguments for the second serial port
	tty             string // which the guest knows by this name
}

func machineFor(version string) machine {
	if arm64(version) {
		return machine{[]string{"qemu-system-aarch64", "-M", "virt", "-cpu", "max,pauth-impdef=on"},
			"console=ttyAMA0 p9.tty=ttyS0", "-device", "pci-serial,chardev=s1", "ttyS0"}
	}
	// Without cx16: qemu 7.2 now and then leaves rubbish in EFLAGS when it
	// emulates cmpxchg16b, which Linux 6.12 uses to allocate memory (seen as a
	// double fault in kmem_cache_alloc with half a pointer in EFLAGS).
	// On a loaded host the kernel's check of its timer fails, and ends it: no_timer_check.
	return machine{[]string{"qemu-system-x86_64", "-cpu", "max,cx16=off"},
		"console=ttyS0 p9.tty=ttyS1 no_timer_check", "-serial", "chardev:s1", "ttyS1"}
}

// boot boots a kernel and follows its guest's console.
func (b *builder) boot(version string, short, verbose bool) (*result, error) {
	r := &result{}
	fmt.Printf("Linux %s:\n", version)
	initrd, err := b.initramfs(version)
	if err != nil {
		return r, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	sock := filepath.Join(b.dir, version, "ttyS1")
	os.Remove(sock)
	m := machineFor(version)
	cmdline := m.cmdline + " quiet panic=-1 oops=panic rdinit=/init selinux=0"
	if short {
		cmdline += " p9.short"
	}
	if b.faults != "" {
		cmdline += " mitigations=off" // the emulated processor leaks nothing, and is slow
	}
	qemu := exec.CommandContext(ctx, m.argv[0], append(m.argv[1:], "-accel", "tcg,thread=multi", "-smp", "2", "-m", "1536",
		"-nodefaults", "-no-reboot", "-display", "none",
		"-chardev", "stdio,id=s0,signal=off", "-serial", "chardev:s0",
		"-chardev", "socket,id=s1,server=on,wait=off,path="+sock, m.second, m.chardev,
		"-kernel", filepath.Join(b.root(version), "boot", "vmlinuz-"+b.release(version)),
		"-initrd", initrd, "-append", cmdline)...)
	qemu.Stderr = os.Stderr
	out, err := qemu.StdoutPipe()
	if err != nil {
		return r, err
	}
	if err := qemu.Start(); err != nil {
		return r, err
	}
	defer qemu.Wait()
	defer cancel()
	silence := time.AfterFunc(patience, cancel)
	defer silence.Stop()

	log, err := os.Create(filepath.Join(b.dir, version, "console"))
	if err != nil {
		return r, err
	}
	defer log.Close()
	visits := make(chan error, 1)
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		silence.Reset(patience)
		l := strings.TrimRight(lines.Text(), "\r")
		fmt.Fprintln(log, l)
		if verbose {
			fmt.Println(l)
		}
		i := strings.Index(l, "p9: ")
		if i < 0 {
			continue
		}
		word, rest, _ := strings.Cut(l[i+4:], " ")
		switch word {
		case "ok":
			r.ok(rest)
		case "FAIL":
			r.fail(rest)
		case "note":
			fmt.Printf("       %s\n", rest)
		case "console": // somebody has to sit down at the second serial port
			go func() { visits <- console(sock, m.tty) }()
		case "done":
			if b.faults != "" {
				return r, nil // nobody was asked to come
			}
			select {
			case err := <-visits:
				if err != nil {
					r.fail("the person at the console: " + err.Error())
				} else {
					r.ok("the person at the console is alice, with nothing else")
				}
			case <-time.After(time.Minute):
				r.fail("nobody could come to the console")
			}
			return r, nil
		}
	}
	return r, errors.Join(fmt.Errorf("the guest ended before its time: see %s", log.Name()), ctx.Err())
}
