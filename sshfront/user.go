package main

import "p9auth/internal/sshuser"

// userMain is the user process.
func userMain() { sshuser.Main() }
