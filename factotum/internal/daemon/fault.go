package daemon

import (
	"fmt"
	"runtime"
	"strings"

	"p9auth/factotum/internal/status"
)

// contain is deferred around what one conversation does: a fault there (a panic)
// ends that conversation and not the daemon. It goes to the log; then after is
// called.
func contain(log status.Log, after func()) {
	fault := recover()
	if fault == nil {
		return
	}
	// What a panic was called with may have a password in it. An error of the
	// runtime has not: it says that an index was out of range, and the like.
	what := fmt.Sprintf("a value of type %T", fault)
	if e, ok := fault.(runtime.Error); ok {
		what = e.Error()
	}
	log.Event(status.Panicked, "fault", what, "stack", stack())
	after()
}

// stack is where the panic was: functions and lines alone, while the text of
// runtime/debug.Stack has arguments in it, such as the words of a key.
func stack() string {
	pcs := make([]uintptr, 32)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs)])
	var b strings.Builder
	for {
		f, more := frames.Next()
		if f.Function != "" && !strings.HasPrefix(f.Function, "runtime.") {
			fmt.Fprintf(&b, "%s:%d ", f.Function, f.Line)
		}
		if !more {
			return strings.TrimSpace(b.String())
		}
	}
}
