// Package faults has tests only. They log in again and again, and at each step of a login,
// in each process of it, have one system call fail or the process be killed; or they log
// thousands of people in while programs are killed and replaced.
//
// A step is the n-th call of one name in one kind of process. The kernel stops the process
// there (SECCOMP_RET_USER_NOTIF of seccomp(2)) and asks the test, which lets the call
// happen, answers with an error in its place, or kills the process.
package faults
