// Package names compares what becomes of a name that somebody types with Debian's sshd
// and login: names that an NSS module leads to an account of another name, names with
// a style, and names that a PAM module changes.
package names
