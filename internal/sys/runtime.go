package sys

// SmallRuntime is for the environment of a process that serves one connection or one
// login. One goroutine at a time runs there: each processor more costs threads, their
// stacks, and wake-ups. With GOMAXPROCS set, containermaxprocs has nothing to look for.
var SmallRuntime = []string{"GOMAXPROCS=1", "GODEBUG=containermaxprocs=0"}
