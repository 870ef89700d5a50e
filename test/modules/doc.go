// Package modules has no code: its test logs the same account in by Debian's
// login and sshd and by ours, with one PAM module after the other, and compares
// what the user gets to see.
package modules
