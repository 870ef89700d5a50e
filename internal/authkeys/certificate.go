package authkeys

import (
	"errors"
	"fmt"
	"net/netip"

	"p9auth/internal/match"
	"p9auth/internal/sshkey"
)

// FromCertificate returns the options of a user certificate
// (PROTOCOL.certkeys): critical ones demand, extensions permit. An unknown
// critical option is an error, an unknown extension grants nothing.
func FromCertificate(c *sshkey.Certificate) (Options, error) {
	o := Options{Tunnel: -1}
	if c.Type != sshkey.UserCert {
		return o, errors.New("not a user certificate")
	}
	for name, v := range c.CriticalOptions {
		switch name {
		case "force-command":
			o.HasCommand, o.Command = true, v
		case "source-address":
			if _, err := match.CIDR(netip.Addr{}, v); err != nil {
				return o, fmt.Errorf("source-address: %w", err)
			}
			o.FromCert = v
		case "verify-required":
			if v != "" {
				return o, errors.New("verify-required takes no value")
			}
			o.VerifyRequired = true
		default:
			return o, fmt.Errorf("certificate critical option %q is not supported", clip(name))
		}
	}
	for name, v := range c.Extensions {
		set := map[string]*bool{"permit-X11-forwarding": &o.X11Forwarding, "permit-agent-forwarding": &o.AgentForwarding,
			"permit-port-forwarding": &o.PortForwarding, "permit-pty": &o.PTY, "permit-user-rc": &o.UserRC,
			"no-touch-required": &o.NoTouchRequired}[name]
		if set == nil {
			continue
		}
		if v != "" {
			return o, fmt.Errorf("certificate option %q has a value", name)
		}
		*set = true
	}
	return o, nil
}

// Merge combines the options of two proofs of one login, as sshauthopt_merge of
// OpenSSH does: those of the line that authorizes a certificate with those of the
// certificate, or those of two keys. Both must permit, either may demand, the earlier
// end holds. Of two lists (PermitOpen, PermitListen, From, FromCert, Environment) and two
// tunnels the first one's holds, where it has one. Two forced commands that differ
// are an error. CertAuthority and Principals have done their work and are left out.
func Merge(first, second Options) (Options, error) {
	o := first
	o.CertAuthority, o.Principals = false, nil
	o.AgentForwarding = first.AgentForwarding && second.AgentForwarding
	o.PortForwarding = first.PortForwarding && second.PortForwarding
	o.X11Forwarding = first.X11Forwarding && second.X11Forwarding
	o.PTY = first.PTY && second.PTY
	o.UserRC = first.UserRC && second.UserRC
	o.NoTouchRequired = first.NoTouchRequired && second.NoTouchRequired
	o.VerifyRequired = first.VerifyRequired || second.VerifyRequired
	if o.From == "" {
		o.From = second.From
	}
	if o.FromCert == "" {
		o.FromCert = second.FromCert
	}
	if o.ValidUntil.IsZero() || !second.ValidUntil.IsZero() && second.ValidUntil.Before(o.ValidUntil) {
		o.ValidUntil = second.ValidUntil
	}
	if len(o.PermitOpen) == 0 {
		o.PermitOpen = second.PermitOpen
	}
	if len(o.PermitListen) == 0 {
		o.PermitListen = second.PermitListen
	}
	if len(o.Environment) == 0 {
		o.Environment = second.Environment
	}
	if o.Tunnel == -1 {
		o.Tunnel = second.Tunnel
	}
	if second.HasCommand {
		if first.HasCommand && first.Command != second.Command {
			return Options{}, errors.New("forced command options do not match")
		}
		o.HasCommand, o.Command = true, second.Command
	}
	return o, nil
}
