// Package asuser opens files with a user's rights: what lies in a home directory
// is the user's, and root must not be led by it.
//
// It runs in the PAM worker and needs root's CAP_SETUID and CAP_SETGID.
package asuser

import (
	"fmt"
	"runtime"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Do calls f with that fsuid, fsgid and those groups, on this thread alone. The
// capabilities that root has over files go with the fsuid: see capabilities(7).
// It does not call f unless the kernel confirms all three. f must not start
// goroutines: their threads are root's.
func Do(uid, gid uint32, groups []uint32, f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before, err := threadGroups()
	if err != nil {
		return err
	}
	if !slices.Equal(before, groups) {
		if err := setThreadGroups(groups); err != nil {
			return err
		}
		defer func() {
			if err := setThreadGroups(before); err != nil {
				panic(err) // with the wrong groups this process must not go on
			}
		}()
	}
	// fsgid first: setting the fsuid gives up the right to.
	oldGID, _ := unix.SetfsgidRetGid(int(gid))
	oldUID, _ := unix.SetfsuidRetUid(int(uid))
	defer func() {
		unix.SetfsuidRetUid(oldUID)
		unix.SetfsgidRetGid(oldGID)
		if u, g := fsIDs(); u != oldUID || g != oldGID {
			panic(fmt.Sprintf("could not set the fsuid back to %d and the fsgid to %d", oldUID, oldGID))
		}
	}()
	// setfsuid(2) does not report errors: ask what is set.
	if u, g := fsIDs(); u != int(uid) || g != int(gid) {
		return fmt.Errorf("setfsuid to %d and setfsgid to %d did not work", uid, gid)
	}
	return f()
}

// fsIDs asks for the thread's fsuid and fsgid: setting an id of -1 fails and
// returns the one that is set.
func fsIDs() (uid, gid int) {
	uid, _ = unix.SetfsuidRetUid(-1)
	gid, _ = unix.SetfsgidRetGid(-1)
	return uid, gid
}

func threadGroups() ([]uint32, error) {
	list, err := unix.Getgroups()
	if err != nil {
		return nil, fmt.Errorf("getgroups: %w", err)
	}
	gids := make([]uint32, len(list))
	for i, g := range list {
		gids[i] = uint32(g)
	}
	return gids, nil
}

// setThreadGroups sets the groups of this thread alone: the C library's
// setgroups(2) would set them in all threads.
func setThreadGroups(gids []uint32) error {
	var p unsafe.Pointer
	if len(gids) > 0 {
		p = unsafe.Pointer(&gids[0])
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(gids)), uintptr(p), 0); e != 0 {
		return fmt.Errorf("setgroups: %w", e)
	}
	return nil
}
