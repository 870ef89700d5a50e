package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
)

// result matches the first line of what a test says of a fault, or of all.
var result = regexp.MustCompile(`^ +\w+_test\.go:\d+: (.*)`)

// faults has test/faults try faults of logins, with the device, in a testbed. All that it
// prints goes to the console; the count and each fault that is not as it should be to the
// summary.
func faults(arguments string) {
	var test *exec.Cmd
	run("the module loads, and a testbed has what it needs", func(t *T) {
		t.must(load(""))
		t.must(loadFile("/lib/overlay.ko", ""))
		t.must(loopback())
		test = exec.Command("/faults.test", append([]string{"-test.v", "-test.run", "AnyStep", "-test.timeout", "24h", "-show", "-slow", "50s"}, strings.Fields(arguments)...)...)
	})
	if test == nil {
		return
	}
	run("each fault of a login with the device harms that login at most", func(t *T) {
		out, err := test.StdoutPipe()
		t.must(err)
		test.Stderr = os.Stderr
		t.must(test.Start())
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			fmt.Println(lines.Text())
			if m := result.FindStringSubmatch(lines.Text()); m != nil {
				fmt.Printf("p9: note %s\n", m[1])
			}
		}
		t.must(test.Wait())
	})
	run("the kernel's log has no splat and no secret", func(t *T) { harmlessLog(t) })
}
