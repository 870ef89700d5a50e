package main

import (
	"os/exec"
	"syscall"
)

// shell is a shell script that runs as a user without rights.
func shell(uid int, script string) *exec.Cmd {
	c := exec.Command("/bin/bash", "-c", script)
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	c.Env = []string{"PATH=/usr/bin:/bin"}
	return c
}

func examples() {}

func services() {}
