package main

import sshuser "p9auth/sshfront/internal/user"

// userMain is the user process.
func userMain() { sshuser.Main() }
