//go:build capdev

package rights

import "golang.org/x/sys/unix"

// backend is what factotum needs in effect for each write to the kernel's caphash, see
// p9auth(4): CAP_SETUID and CAP_SETGID, or CAP_GRANT_ID (kernel/patches) where the
// kernel has that.
const backend = 1<<unix.CAP_SETUID | 1<<unix.CAP_SETGID | 1<<capGrantID

const capGrantID = 41
