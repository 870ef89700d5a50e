package main

import (
	"fmt"
	"net"
	"os"

	"p9auth/internal/sshdconf"
)

// connectionMain is the connection process.
func connectionMain() {
	conf, err := readConfig(connConfigFD)
	if err != nil {
		fmt.Fprintf(os.Stderr, "sshfront: %v\n", err)
		os.Exit(exitFailure)
	}
	setupLog(conf.LogLevel, conf.Settings.LogVerbose)
	if err := connection1(); err != nil {
		logf(sshdconf.LogFatal, "%v", err)
		os.Exit(exitFailure)
	}
}

func connection1() error {
	if _, err := openControl(connControlFD); err != nil {
		return err
	}
	c, err := net.FileConn(os.NewFile(connSocketFD, "tcp"))
	if err != nil {
		return err
	}
	defer c.Close()
	return fmt.Errorf("connection from %s: the SSH protocol is not implemented yet", c.RemoteAddr())
}
