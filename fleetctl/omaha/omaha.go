// Package omaha answers hosts that ask for updates by the Omaha protocol 3.0, as update_engine of Flatcar speaks it
// (https://github.com/google/omaha/blob/main/doc/ServerProtocolV3.md): POST /v1/update/ with update checks, events and pings.
//
// What a host is given is what the signed inventory says of its track ([[update]] of fleet.toml), older than its own or newer. It is given it when the planner lets it go
// (package grant), and is told "noupdate" until then, as Omaha has no word for "wait". Its place ends when it says that it has restarted or failed, when it
// has the version, or by itself. Whether a package is genuine, the host decides by the system's own signature in it.
//
// A host is known by its machine id and its address together. Read protocol.go (what is parsed, strictly and bounded), omaha.go.
package omaha

import (
	"context"
	"encoding/xml"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"mayfly/fleetctl/grant"
	"mayfly/inventory"
)

// Path is where hosts ask.
const Path = "/v1/update/"

// Desk decides.
type Desk interface {
	Ask(ctx context.Context, host, protocol string) (grant.Answer, error)
	Back(ctx context.Context, host string) (bool, error)
}

// Service answers. All fields are needed.
type Service struct {
	Desk  Desk
	Fleet func() inventory.Fleet // of the policy in force
	Asked func(answer string)    // counts
	Log   *slog.Logger

	mu   sync.Mutex
	said map[string]string // why each host waits, said once; as many as there are hosts
}

// Handler answers Path, with and without its slash.
func (s *Service) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc(Path+"{$}", s.answer)
	mux.HandleFunc(strings.TrimSuffix(Path, "/"), s.answer)
	return mux
}

func (s *Service) answer(w http.ResponseWriter, r *http.Request) {
	refuse := func(code int, why string) {
		s.Asked("refused")
		http.Error(w, why, code)
	}
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", "POST")
		refuse(http.StatusMethodNotAllowed, "this is asked by POST")
		return
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, MaxBody+1))
	if err != nil {
		return // whoever asked has gone
	}
	in, err := Parse(body)
	if err != nil {
		refuse(http.StatusBadRequest, "request_malformed: "+err.Error())
		return
	}
	fleet := s.Fleet()
	out := response{Protocol: protocolVersion, Server: "mayfly"}
	y, m, d := time.Now().UTC().Date()
	out.DayStart.Elapsed = int(time.Since(time.Date(y, m, d, 0, 0, 0, 0, time.UTC)) / time.Second)
	for _, app := range in.Apps {
		host, ok := find(fleet, app, in.UserID, r.RemoteAddr)
		if !ok {
			// One answer for an id that is not there and for one of somebody else.
			refuse(http.StatusForbidden, "host_unknown: no host with this machine id asks from this address by Omaha: see updates and update_id in fleet.toml")
			return
		}
		a, err := s.app(r.Context(), fleet, app, host)
		if err != nil {
			s.Asked("failed")
			s.Log.Error("answering a host", "host", host, "error", err)
			http.Error(w, "failed: the controller cannot decide now: ask again", http.StatusServiceUnavailable)
			return
		}
		out.Apps = append(out.Apps, a)
	}
	data, err := xml.Marshal(out)
	if err != nil {
		panic("omaha: internal error: " + err.Error())
	}
	w.Header().Set("Content-Type", "text/xml; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(append([]byte(xml.Header), data...)) // who has gone meanwhile asks again
}

// find is the host that asks: its machine id, or else the user's id, from its own address.
func find(f inventory.Fleet, app App, user, remote string) (string, bool) {
	id := app.MachineID
	if id == "" {
		id = user
	}
	from, err := netip.ParseAddrPort(remote)
	if err != nil {
		return "", false
	}
	for _, h := range f.Asking() {
		if h.Updates == inventory.UpdatesOmaha && h.UpdateID == id && h.Address.Addr() == from.Addr().Unmap() {
			return h.Name, true
		}
	}
	return "", false
}

// app answers one application of one host.
func (s *Service) app(ctx context.Context, f inventory.Fleet, app App, host string) (appResponse, error) {
	a := appResponse{ID: app.ID, Status: statusOK}
	if app.Ping != nil {
		a.Ping = &status{statusOK}
	}
	for _, e := range app.Events {
		a.Events = append(a.Events, status{statusOK})
		if e.Type != EventComplete || e.Result == ResultSuccess {
			continue
		}
		was, err := s.Desk.Back(ctx, host)
		if err != nil {
			return a, err
		}
		s.Asked("released")
		if e.Result == ResultError {
			s.Log.Warn("a host's update failed", "host", host, "version", app.Version, "code", e.Error)
		} else if was {
			s.Log.Info("a host is back", "host", host, "by", inventory.UpdatesOmaha, "version", app.Version)
		}
	}
	if app.UpdateCheck == nil {
		return a, nil
	}
	u, ok := track(f, app)
	switch {
	case !ok:
		s.Asked("refused")
		return appResponse{ID: app.ID, Status: statusUnknownApp}, nil
	case u.Version == app.Version:
		if _, err := s.Desk.Back(ctx, host); err != nil { // it is there
			return a, err
		}
		s.Asked("current")
		a.Check = &check{Status: statusNoUpdate}
		return a, nil
	}
	answer, err := s.Desk.Ask(ctx, host, inventory.UpdatesOmaha)
	if err != nil {
		return a, err
	}
	if !answer.Granted {
		s.Asked("held")
		if s.changed(host, string(answer.Reason)) {
			s.Log.Info("a host waits for its update", "host", host, "reason", answer.Reason, "why", answer.Why)
		}
		a.Check = &check{Status: statusNoUpdate}
		return a, nil
	}
	s.Asked("granted")
	if s.changed(host, ""); answer.Reason != grant.Already {
		s.Log.Info("a host may update", "host", host, "version", u.Version, "was", app.Version, "until", answer.Until)
	}
	a.Check = &check{Status: statusOK, URLs: &urls{[]codebase{{u.URL}}}, Manifest: &manifest{
		Version:  u.Version,
		Packages: []pack{{Hash: u.SHA1, Name: u.Package, Size: u.Size, Required: true}},
		Actions:  []after{{Event: "postinstall", SHA256: u.SHA256, DisablePayloadBackoff: true}},
	}}
	return a, nil
}

// track is what the host's track is given. Ids are compared as people write them: with braces and in capitals, or without.
func track(f inventory.Fleet, app App) (inventory.Update, bool) {
	plain := func(id string) string { return strings.ToLower(strings.Trim(id, "{}")) }
	for _, u := range f.Updates {
		if plain(u.App) == plain(app.ID) && u.Track == app.Track {
			return u, true
		}
	}
	return inventory.Update{}, false
}

// changed reports whether a host waits for another reason than before.
func (s *Service) changed(host, reason string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.said == nil {
		s.said = map[string]string{}
	}
	was := s.said[host]
	s.said[host] = reason
	return was != reason
}
