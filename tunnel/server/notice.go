package server

import (
	"net/http"
	"net/netip"
	"time"

	"mayfly/tunnel/device"
	"mayfly/tunnel/wire"
)

// inside is what clients may ask through the tunnel: to be told of a drain, and to be let go.
func (s *Server) inside() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc(wire.PathNotice, s.notice)
	mux.HandleFunc(wire.PathRelease, s.release)
	mux.HandleFunc("/", unknown)
	return mux
}

// notice is held until the server drains or NoticeHold has passed.
func (s *Server) notice(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		refuse(w, wire.WrongMethod)
		return
	}
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !s.peers.knows(from.Addr()) {
		refuse(w, wire.NotYours)
		return
	}
	timer := time.NewTimer(wire.NoticeHold)
	defer timer.Stop()
	select {
	case <-s.drain.begun:
		s.peers.inform(from.Addr())
	case <-timer.C:
	case <-r.Context().Done():
		return
	}
	answer(w, http.StatusOK, s.drain.notice(time.Now()))
}

func (s *Server) release(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		refuse(w, wire.WrongMethod)
		return
	}
	var body wire.Release
	if reason := read(r, &body); reason != "" {
		refuse(w, reason)
		return
	}
	key, err := device.ParseKey(body.PublicKey)
	if err != nil {
		refuse(w, wire.BadKey)
		return
	}
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		refuse(w, wire.NotYours)
		return
	}
	if err := s.peers.release(key, from.Addr(), time.Now()); err != nil {
		refuse(w, reasonOf(err))
		return
	}
	answer(w, http.StatusOK, struct{}{})
}
