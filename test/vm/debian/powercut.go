package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// accept names the keywords whose defaults Debian's OpenSSH has other algorithms for.
const accept = "-a hostkeyalgorithms,ciphers,kexalgorithms "

// powerCuts kills qemu at a random command of a switch, n times, without any sync in the
// guest, and asks port 22 after the next boot. What the guest's kernel has not written then
// is lost, as with a real machine; what its disk has taken is not. Root is logged in at
// ttyS0 before and after.
func powerCuts(dir string, verbose bool, signer ssh.Signer, n int) {
	// Each with how many of its commands change something, or wait for what does.
	switches := []struct {
		before, args string
		changes      int
	}{
		{"ssh off", accept + "ssh on", 8},
		{accept + "ssh on", "ssh off", 8},
		{"local off", "local on", 40},
		{"local on", "local off", 30},
		{"console off", "console on", 8},
		{"console on", "console off", 8},
	}
	answered := 0
	for i := range n {
		s := switches[i%len(switches)]
		k := 1 + rand.IntN(s.changes)
		what := fmt.Sprintf("the power is cut at change %d of %s, or its end", k, strings.TrimPrefix(s.args, accept))
		ok := claim(what+": port 22 answers after the next boot", func() error {
			if err := want(vm.sh("sync; p9auth-switch "+s.before+" >/dev/null; echo status $?"), `status 0$`); err != nil {
				return err
			}
			vm.send("sh -x /usr/sbin/p9auth-switch " + s.args + " 2>&1 | cat; echo it has '\"ended\"'\n")
			for range k {
				if strings.Contains(vm.expect(`\n\++ (systemctl (start|stop|enable|disable|daemon-reload|restart)|sync|mv|ln|rm|rmdir|cp|sed -i|mkdir|chmod|chown|dpkg-\w+) |it has "ended"`), `"ended"`) {
					break
				}
			}
			time.Sleep(time.Duration(rand.IntN(500)) * time.Millisecond)
			vm.stop()
			var err error
			if vm, err = start(dir, verbose, ""); err != nil {
				return err
			}
			return eventuallyIn(signer)
		})
		if ok {
			answered++
		}
		must("root logs in at ttyS0 after that", func() error { return vm.login("root", `# $`) })
		claim("the same switch, said again, comes to its end", func() error {
			word := strings.Fields(strings.TrimPrefix(s.args, accept))
			return want(vm.sh("p9auth-switch "+s.args+" >/dev/null; echo status $?; p9auth-switch status"), `status 0\n[\s\S]*`+word[0]+": "+word[1])
		})
	}
	all := "all answered"
	if answered < n {
		all = fmt.Sprintf("%d did not answer", n-answered)
	}
	fmt.Printf("power cuts: %d, %s\n", n, all)
}

// eventuallyIn is an error unless alice gets in by ssh, when the machine has come up.
func eventuallyIn(signer ssh.Signer) error {
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(2 * time.Second) {
		var c *ssh.Client
		if c, err = dial("alice", ssh.PublicKeys(signer)); err == nil {
			defer c.Close()
			return want(run(c, "id -un"), `^alice$`)
		}
	}
	return errors.Join(errors.New("nobody answers"), err)
}
