package server

import (
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"time"

	"mayfly/internal/durable"
	"mayfly/inventory"
	"mayfly/tunnel/device"
	"mayfly/tunnel/wire"
)

// outside is what the world may ask: to register a key.
func (s *Server) outside() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc(wire.PathRegister, s.register)
	mux.HandleFunc("/", unknown)
	return mux
}

func (s *Server) register(w http.ResponseWriter, r *http.Request) {
	now := time.Now()
	if r.Method != http.MethodPost {
		refuse(w, wire.WrongMethod)
		return
	}
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !s.sources.allow(from.Addr(), now) {
		refuse(w, wire.Busy)
		return
	}
	var body wire.Registration
	if reason := read(r, &body); reason != "" {
		refuse(w, reason)
		return
	}
	key, err := device.ParsePublicKey(body.PublicKey)
	if err != nil || key == s.public { // the data plane takes no peer with its own key
		refuse(w, wire.BadKey)
		return
	}
	local, ok := localAddress(r)
	if !ok {
		refuse(w, wire.Failed)
		return
	}
	left, ok := s.sources.hold(from.Addr(), now)
	if !ok {
		refuse(w, wire.SourceFull)
		return
	}
	address, preshared, err := s.peers.register(key, left, now)
	if err != nil {
		left()
		refuse(w, reasonOf(err))
		return
	}
	var life []byte
	if body.Life {
		life = s.life()
	}
	answer(w, http.StatusOK, wire.Session{
		Address:          netip.PrefixFrom(address, address.BitLen()),
		DNS:              s.config.Address(),
		ServerKey:        s.public.Base64(),
		Endpoint:         netip.AddrPortFrom(local, s.config.Listen.Port()),
		PresharedKey:     preshared.Base64(),
		KeepaliveSeconds: int(wire.Keepalive / time.Second),
		Notice:           netip.AddrPortFrom(s.config.Address(), inventory.PortNotice),
		MTU:              device.MTU,
		Life:             life,
	})
}

// life is the proof that the fleet's public ledger has this life, or nothing while there is none. Who asks for it decides without it.
func (s *Server) life() []byte {
	if s.config.Life == "" {
		return nil
	}
	proof, err := durable.ReadRegular(s.config.Life, wire.MaxLife)
	if err != nil {
		return nil
	}
	return proof
}

// localAddress is the address of ours that the client reached; WireGuard is reached there too.
func localAddress(r *http.Request) (netip.Addr, bool) {
	a, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	if !ok {
		return netip.Addr{}, false
	}
	return a.AddrPort().Addr().Unmap(), true
}

// read takes a request's body strictly; the empty reason means that it could.
func read(r *http.Request, v any) wire.Reason {
	err := wire.Decode(r.Body, wire.MaxBody, v)
	switch {
	case errors.Is(err, wire.ErrTooLarge):
		return wire.TooLarge
	case err != nil:
		return wire.Malformed
	}
	return ""
}

func reasonOf(err error) wire.Reason {
	var r *wire.Refusal
	if errors.As(err, &r) {
		return r.Reason
	}
	return wire.Failed
}

func unknown(w http.ResponseWriter, r *http.Request) { refuse(w, wire.NotFound) }

func refuse(w http.ResponseWriter, reason wire.Reason) {
	answer(w, reason.Status(), wire.Refusal{Reason: reason})
}

func answer(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		panic("tunnel: internal error: an answer that does not marshal")
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("Connection", "close") // one question a connection: nothing to reuse, and nothing that lingers
	w.WriteHeader(status)
	if _, err := w.Write(append(body, '\n')); err != nil {
		return // the client went away
	}
}
