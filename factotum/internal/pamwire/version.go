package pamwire

import (
	"strconv"

	"p9auth/capproto"
)

// A VersionError says that factotum and the worker are of different versions. Its
// text tells the administrator what to do.
type VersionError struct{ Worker, Factotum int }

func (e *VersionError) Error() string {
	age := "older"
	if e.Worker > e.Factotum {
		age = "newer"
	}
	return "factotum-pam is " + age + " than factotum; restart factotum"
}

// CheckFactotum judges the first packet from factotum, on the worker's side. The
// error is a *VersionError unless it is a Hello of this version. The worker says
// Refusal(m) then, and nothing else.
func CheckFactotum(m capproto.Msg) error {
	if v := versionOf(m); v != Version {
		return &VersionError{Worker: Version, Factotum: v}
	}
	return nil
}

// CheckWorker judges the first packet from the worker, on factotum's side. The
// error is a *VersionError unless it is a Hello of this version.
func CheckWorker(m capproto.Msg) error {
	if v := versionOf(m); v != Version {
		return &VersionError{Worker: v, Factotum: Version}
	}
	return nil
}

// Refusal is the worker's answer to a first packet that CheckFactotum refuses:
// its own Hello, by which factotum sees which of them is older. A factotum that
// knows no Hello gets the sentence instead, as an error that it logs.
func Refusal(m capproto.Msg) Event {
	if v := versionOf(m); v == 0 {
		return Failed{Text: (&VersionError{Worker: Version, Factotum: v}).Error()}
	}
	return Hello{Version}
}

// versionOf reads a Hello of any version, which may have attributes that we do
// not know. Whatever else there is, is version 0.
func versionOf(m capproto.Msg) int {
	if m.Verb != "hello" {
		return 0
	}
	n, err := strconv.ParseUint(m.Get("version"), 10, 31)
	if err != nil {
		return 0
	}
	return int(n)
}
