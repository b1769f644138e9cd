// Package fleetlock answers hosts that ask by the FleetLock protocol whether they may restart: Zincati of Fedora CoreOS, and others that speak it
// (https://coreos.github.io/zincati/development/fleetlock/protocol/). POST /v1/pre-reboot takes a place, POST /v1/steady-state gives it back; both may be
// asked again and again.
//
// Unlike a plain semaphore, a place ends by itself, the planner decides who gets one (package grant), and who waits is told who is out. A host is known by
// its id and its address together. It answers bounded requests, of hosts in the inventory alone, and changes nothing but leases.
package fleetlock

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"regexp"

	"mayfly/fleetctl/grant"
	"mayfly/inventory"
)

// Specification constants.
const (
	PathPreReboot   = "/v1/pre-reboot"
	PathSteadyState = "/v1/steady-state"
	Header          = "Fleet-Lock-Protocol" // "true"
)

// Kinds of errors: a closed list, since clients count them. Held is followed by the planner's reason.
const (
	KindMethod    = "method_not_post"
	KindHeader    = "header_missing"
	KindMalformed = "request_malformed"
	KindUnknown   = "host_unknown"
	KindFailed    = "failed"
	KindHeld      = "held_" // held_floor, held_window, …
)

// MaxBody bounds a request.
const MaxBody = 4 << 10

var group = regexp.MustCompile(`^[a-zA-Z0-9.-]{1,64}$`)

// Request is the body.
type Request struct {
	ID    string `json:"id"`
	Group string `json:"group"`
}

// Parse reads a body. Fields that the protocol does not have yet are passed over.
func Parse(body []byte) (Request, error) {
	var in struct {
		Params *Request `json:"client_params"`
	}
	switch err := json.Unmarshal(body, &in); {
	case len(body) > MaxBody:
		return Request{}, fmt.Errorf("longer than %d bytes", MaxBody)
	case err != nil:
		return Request{}, errors.New("no JSON of the protocol")
	case in.Params == nil:
		return Request{}, errors.New("client_params is missing")
	case in.Params.ID == "" || len(in.Params.ID) > 128:
		return Request{}, errors.New("client_params.id is empty or too long")
	case !group.MatchString(in.Params.Group):
		return Request{}, errors.New("client_params.group is no word of letters, digits, dots and dashes")
	}
	return *in.Params, nil
}

// Desk decides.
type Desk interface {
	Ask(ctx context.Context, host, protocol string) (grant.Answer, error)
	Back(ctx context.Context, host string) (bool, error)
}

// Service answers. All fields are needed.
type Service struct {
	Desk  Desk
	Hosts func() []inventory.Server // that ask, of the policy in force
	Asked func(answer string)       // counts
	Log   *slog.Logger
}

// Handler answers both paths.
func (s *Service) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc(PathPreReboot, func(w http.ResponseWriter, r *http.Request) { s.answer(w, r, s.preReboot) })
	mux.HandleFunc(PathSteadyState, func(w http.ResponseWriter, r *http.Request) { s.answer(w, r, s.steadyState) })
	return mux
}

func (s *Service) answer(w http.ResponseWriter, r *http.Request, act func(w http.ResponseWriter, r *http.Request, host string)) {
	refuse := func(status int, kind, value string) {
		s.Asked("refused")
		say(w, status, kind, value)
	}
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", "POST")
		refuse(http.StatusMethodNotAllowed, KindMethod, "this is asked by POST")
		return
	}
	if r.Header.Get(Header) != "true" {
		refuse(http.StatusBadRequest, KindHeader, "the header fleet-lock-protocol: true is missing")
		return
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, MaxBody+1))
	if err != nil {
		return // whoever asked has gone
	}
	in, err := Parse(body)
	if err != nil {
		refuse(http.StatusBadRequest, KindMalformed, err.Error())
		return
	}
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	for _, h := range s.Hosts() {
		if err == nil && h.Updates == inventory.UpdatesFleetLock && h.UpdateID == in.ID && h.Address.Addr() == from.Addr().Unmap() {
			act(w, r, h.Name)
			return
		}
	}
	// One answer for an id that is not there and for one of somebody else.
	refuse(http.StatusForbidden, KindUnknown, "no host with this id asks from this address by FleetLock: see updates and update_id in fleet.toml")
}

func (s *Service) preReboot(w http.ResponseWriter, r *http.Request, host string) {
	a, err := s.Desk.Ask(r.Context(), host, inventory.UpdatesFleetLock)
	switch {
	case err != nil:
		s.fail(w, host, err)
	case a.Granted:
		s.Asked("granted")
		if a.Reason != grant.Already {
			s.Log.Info("a host may restart", "host", host, "by", inventory.UpdatesFleetLock, "until", a.Until, "why", a.Why)
		}
		say(w, http.StatusOK, "granted", "until "+a.Until.UTC().Format("2006-01-02T15:04:05Z07:00"))
	default:
		s.Asked("held")
		say(w, http.StatusConflict, KindHeld+string(a.Reason), a.Why)
	}
}

func (s *Service) steadyState(w http.ResponseWriter, r *http.Request, host string) {
	was, err := s.Desk.Back(r.Context(), host)
	if err != nil {
		s.fail(w, host, err)
		return
	}
	s.Asked("released")
	if was {
		s.Log.Info("a host is back", "host", host, "by", inventory.UpdatesFleetLock)
	}
	say(w, http.StatusOK, "released", "it holds no place")
}

func (s *Service) fail(w http.ResponseWriter, host string, err error) {
	s.Asked("failed")
	s.Log.Error("answering a host", "host", host, "error", err)
	say(w, http.StatusServiceUnavailable, KindFailed, "the controller cannot decide now: ask again")
}

// say writes an answer of the protocol's form.
func say(w http.ResponseWriter, status int, kind, value string) {
	if value == "" {
		value = kind
	}
	data, err := json.Marshal(map[string]string{"kind": kind, "value": value})
	if err != nil {
		panic("fleetlock: internal error: " + err.Error())
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(append(data, '\n')) // who has gone meanwhile asks again
}
