package main

import (
	"fmt"
	"os"
)

// userMain is the user process.
func userMain() {
	fmt.Fprintln(os.Stderr, "sshfront: user processes are not implemented yet")
	os.Exit(exitFailure)
}
