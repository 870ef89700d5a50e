package main

/*
#include <signal.h>

static void
caught(int n)
{
	(void)n;
}

static void
catch_signals(void)
{
	static const int signals[] = { SIGHUP, SIGINT, SIGPIPE, SIGTERM };
	struct sigaction sa = { .sa_handler = caught, .sa_flags = SA_RESTART | SA_ONSTACK };

	for (unsigned i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		sigaction(signals[i], &sa, NULL);
}
*/
import "C"

// catchSignals makes this process live through the signals that end a session. Giving
// a terminal back hangs up its line, which must not end this process before the session
// is closed. The signals are caught, not ignored: programs that modules execute would
// inherit that. Package os/signal would keep a thread for it.
func catchSignals() { C.catch_signals() }
