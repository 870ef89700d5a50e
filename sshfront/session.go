package main

import (
	"fmt"
	"os"
)

// sessionMain is the session process.
func sessionMain() {
	if _, err := readConfig(sessionConfigFD); err != nil {
		fmt.Fprintf(os.Stderr, "sshfront: %v\n", err)
		os.Exit(exitFailure)
	}
	fmt.Fprintf(os.Stderr, "sshfront: session processes are not implemented yet (link %d)\n", sessionLinkFD)
	os.Exit(exitFailure)
}
