package client

import "net/netip"

// Event is something that the user's side may want to know. It is a line of JSON on the client's standard output.
type Event struct {
	Event     string     `json:"event"` // "up", "moved", "left" (an old session), "waiting" (no server yet) or "down"
	Server    string     `json:"server,omitempty"`
	Region    string     `json:"region,omitempty"`
	From      string     `json:"from,omitempty"` // the server before, of "moved"
	Address   netip.Addr `json:"address,omitzero"`
	DNS       netip.Addr `json:"dns,omitzero"`
	Interface string     `json:"interface,omitempty"`
	Reason    string     `json:"reason,omitempty"` // "draining", "unlisted", "lost", "stopped", or what is waited for
}

// Reasons of a move or an end.
const (
	reasonDraining = "draining"
	reasonUnlisted = "unlisted"
	reasonLost     = "lost"
	reasonStopped  = "stopped"
)
