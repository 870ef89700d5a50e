// Package openssh runs OpenSSH's own tests, Debian's package openssh-tests, against
// factotum and sshfront.
//
// The suite consists of shell scripts. Each writes an sshd_config, starts a server with
// it, at a port or as the ProxyCommand of its client, and tries what the script is named
// after. In place of sshd they get the test's own program (standin_test.go), which has a
// factotum and a sshfront of its own serve that configuration. expect_test.go says which
// scripts do not concern a server, and which do not pass and why; all others must.
//
// "go test ./test/openssh" takes a few scripts; make test-openssh all, with the suites
// of Debian 12 and 13, and runs each script with the real sshd too.
package openssh
