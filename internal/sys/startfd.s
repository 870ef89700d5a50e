// The functions that startfd.go links to have no body: the compiler wants a file
// of assembly for that.
