// The version of golang.org/x/crypto that tools/sshpatch copies and changes.
// go.sum beside this file checks it: the go.sum at the top cannot, since go.mod
// there replaces the module by the copy. Both files must name one version.
module p9auth/tools/sshpatch/pin

go 1.26.0

require golang.org/x/crypto v0.58.0
