package sockets

import (
	"net"
	"testing"
)

func TestWhoIsNotConnectedByTCPHasNoAddress(t *testing.T) {
	for a, want := range map[net.Addr]string{
		&net.UnixAddr{Net: "unix"}:                                 "UNKNOWN",
		&net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 2}:          "192.0.2.1",
		&net.TCPAddr{IP: net.ParseIP("fe80::1"), Zone: "eth0"}:     "fe80::1%eth0",
		&net.TCPAddr{IP: net.ParseIP("::ffff:192.0.2.1"), Port: 2}: "192.0.2.1",
	} {
		if got := Host(AddrPort(a).Addr()); got != want {
			t.Errorf("%v: %s, want %s", a, got, want)
		}
	}
	if AddrPort(&net.UDPAddr{}).IsValid() {
		t.Error("an address of UDP is one of TCP")
	}
}
