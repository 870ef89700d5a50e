// Package sftp is an SFTP server: version 3 of the protocol
// (draft-ietf-secsh-filexfer-02) with OpenSSH's extensions (section 4 of its
// PROTOCOL file). It behaves as OpenSSH's sftp-server(8) does, down to the bytes
// of its replies; the tests run both side by side. What differs on purpose is
// listed under SFTP in p9auth_sshd_config(5).
//
// The server runs as the user who logged in, in a process of its own, with the
// rights of that user and no others. It trusts the kernel and its arguments. It
// does not trust the client, which has logged in but may be confined to sftp:
// confine sees to it that reading and writing files does not become running
// programs. It needs no right and no other process; names of users and groups
// that are not in /etc/passwd and /etc/group it asks the user process for.
//
// Memory is bounded: one buffer of input (a packet has at most 256 KiB), one of
// output, and a few words for each open handle, of which there are as many as
// RLIMIT_NOFILE permits.
package sftp
