package power

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// redfishSim is a BMC with one system, one chassis and two drives, over TLS. Its faults are those that BMCs have been seen to have.
type redfishSim struct {
	server *httptest.Server
	user   string
	secret string

	mu       sync.Mutex // guards the rest
	on       bool
	boot     bootSource
	images   map[string]string
	sessions map[string]bool
	commands int
	log      []string
	most     int                 // sessions at once
	fault    func(*simCall) bool // true: it has answered
	turned   func(on bool) error // drives a machine; nil: none
}

// simCall is one command as a fault sees it, with the simulator's lock held.
type simCall struct {
	*redfishSim
	w      http.ResponseWriter
	r      *http.Request
	number int
}

func (c *simCall) is(method, suffix string) bool {
	return c.r.Method == method && strings.HasSuffix(c.r.URL.Path, suffix)
}

const (
	simSystem  = "/redfish/v1/Systems/1"
	simChassis = "/redfish/v1/Chassis/1"
	simManager = "/redfish/v1/Managers/1"
	simUSB     = simManager + "/VirtualMedia/USB1"
	simCD      = simManager + "/VirtualMedia/CD1"
)

func newRedfishSim(t *testing.T) *redfishSim {
	t.Helper()
	s := &redfishSim{user: "mayfly", secret: "correct horse 7", images: map[string]string{}, sessions: map[string]bool{}}
	s.server = httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	s.server.Config.ErrorLog = nil
	s.server.StartTLS()
	t.Cleanup(func() {
		s.server.CloseClientConnections()
		s.server.Close()
	})
	return s
}

func (s *redfishSim) address() string { return strings.TrimPrefix(s.server.URL, "https://") }

func (s *redfishSim) fingerprint() string {
	sum := sha256.Sum256(s.server.Certificate().Raw)
	return hex.EncodeToString(sum[:])
}

func (s *redfishSim) ca() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.server.Certificate().Raw}))
}

func (s *redfishSim) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.commands++
	s.log = append(s.log, r.Method+" "+r.URL.Path)
	if s.fault != nil && s.fault(&simCall{s, w, r, s.commands}) {
		return
	}
	s.answer(w, r)
}

// answer is what a good BMC answers.
func (s *redfishSim) answer(w http.ResponseWriter, r *http.Request) {
	var body map[string]any
	if r.Body != nil {
		if data, err := io.ReadAll(r.Body); err == nil && len(data) > 0 {
			if err := json.Unmarshal(data, &body); err != nil {
				http.Error(w, "no JSON", http.StatusBadRequest)
				return
			}
		}
	}
	if r.Method == http.MethodPost && r.URL.Path == redfishSessions {
		if body["UserName"] != s.user || body["Password"] != s.secret {
			http.Error(w, "no", http.StatusUnauthorized)
			return
		}
		token := fmt.Sprintf("token-%d", s.commands)
		s.sessions[token] = true
		s.most = max(s.most, len(s.sessions))
		w.Header().Set("X-Auth-Token", token)
		w.Header().Set("Location", redfishSessions+"/"+token)
		w.WriteHeader(http.StatusCreated)
		return
	}
	user, pass, basic := r.BasicAuth()
	if !s.sessions[r.Header.Get("X-Auth-Token")] && !(basic && user == s.user && pass == s.secret) {
		http.Error(w, "no", http.StatusUnauthorized)
		return
	}
	switch {
	case r.Method == http.MethodDelete && strings.HasPrefix(r.URL.Path, redfishSessions+"/"):
		delete(s.sessions, strings.TrimPrefix(r.URL.Path, redfishSessions+"/"))
		w.WriteHeader(http.StatusNoContent)
	case r.Method == http.MethodGet:
		s.get(w, r)
	case r.Method == http.MethodPatch && r.URL.Path == simSystem:
		if boot, ok := body["Boot"].(map[string]any); ok {
			if r.Header.Get("If-Match") == "" {
				http.Error(w, "If-Match", http.StatusPreconditionRequired)
				return
			}
			s.boot = bootSource{Mode: s.boot.Mode, URI: s.boot.URI}
			s.boot.Enabled, _ = boot["BootSourceOverrideEnabled"].(string)
			s.boot.Target, _ = boot["BootSourceOverrideTarget"].(string)
			if mode, ok := boot["BootSourceOverrideMode"].(string); ok {
				s.boot.Mode = mode
			}
			if uri, ok := boot["HttpBootUri"].(string); ok {
				s.boot.URI = uri
			}
		}
		w.WriteHeader(http.StatusNoContent)
	case r.Method == http.MethodPost && r.URL.Path == simSystem+"/Actions/ComputerSystem.Reset":
		s.reset(w, body["ResetType"])
	case r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/Actions/VirtualMedia.InsertMedia"):
		image, _ := body["Image"].(string)
		s.images[strings.TrimSuffix(r.URL.Path, "/Actions/VirtualMedia.InsertMedia")] = image
		w.WriteHeader(http.StatusNoContent)
	case r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/Actions/VirtualMedia.EjectMedia"):
		delete(s.images, strings.TrimSuffix(r.URL.Path, "/Actions/VirtualMedia.EjectMedia"))
		w.WriteHeader(http.StatusNoContent)
	default:
		http.NotFound(w, r)
	}
}

func (s *redfishSim) reset(w http.ResponseWriter, kind any) {
	on := kind == "On"
	if !on && kind != "ForceOff" {
		http.Error(w, "kind", http.StatusBadRequest)
		return
	}
	if on == s.on { // as many do
		http.Error(w, "it is so already", http.StatusConflict)
		return
	}
	if s.turned != nil {
		if err := s.turned(on); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
	}
	s.on = on
	w.WriteHeader(http.StatusNoContent)
}

func (s *redfishSim) power() string {
	if s.on {
		return "On"
	}
	return "Off"
}

func (s *redfishSim) get(w http.ResponseWriter, r *http.Request) {
	members := func(paths ...string) map[string]any {
		var list []map[string]string
		for _, p := range paths {
			list = append(list, map[string]string{"@odata.id": p})
		}
		return map[string]any{"Members": list, "Members@odata.count": len(list)}
	}
	drive := func(path string, types ...string) map[string]any {
		image := s.images[path]
		connected := "NotConnected"
		if image != "" {
			connected = "URI"
		}
		return map[string]any{"@odata.id": path, "Image": image, "Inserted": image != "", "ConnectedVia": connected, "MediaTypes": types,
			"Actions": map[string]any{
				"#VirtualMedia.InsertMedia": map[string]any{"target": path + "/Actions/VirtualMedia.InsertMedia"},
				"#VirtualMedia.EjectMedia":  map[string]any{"target": path + "/Actions/VirtualMedia.EjectMedia"}}}
	}
	var out any
	switch r.URL.Path {
	case redfishSystems:
		out = members(simSystem)
	case simSystem:
		out = s.system()
	case simChassis:
		out = map[string]any{"@odata.id": simChassis, "PowerState": s.power()}
	case simManager:
		out = map[string]any{"@odata.id": simManager, "VirtualMedia": map[string]string{"@odata.id": simManager + "/VirtualMedia"}}
	case simManager + "/VirtualMedia":
		out = members(simCD, simUSB)
	case simCD:
		out = drive(simCD, "CD", "DVD")
	case simUSB:
		out = drive(simUSB, "USBStick", "Floppy")
	default:
		http.NotFound(w, r)
		return
	}
	s.json(w, out)
}

func (s *redfishSim) system() map[string]any {
	return map[string]any{"Id": "1", "@odata.id": simSystem, "@odata.etag": fmt.Sprintf(`W/"%d"`, s.commands), "PowerState": s.power(),
		"Boot": map[string]any{"BootSourceOverrideEnabled": s.boot.Enabled, "BootSourceOverrideTarget": s.boot.Target, "BootSourceOverrideMode": s.boot.Mode,
			"HttpBootUri": s.boot.URI, "BootSourceOverrideTarget@Redfish.AllowableValues": []string{"None", "Pxe", "Cd", "Usb", "UefiHttp"}},
		"Links":   map[string]any{"Chassis": []map[string]string{{"@odata.id": simChassis}}, "ManagedBy": []map[string]string{{"@odata.id": simManager}}},
		"Actions": map[string]any{"#ComputerSystem.Reset": map[string]any{"target": simSystem + "/Actions/ComputerSystem.Reset"}},
		"Oem":     map[string]any{"Vendor": map[string]any{"Anything": []int{1, 2}}}}
}

func (s *redfishSim) json(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}

// do runs something with the simulator's lock held.
func (s *redfishSim) do(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// hang never answers, until the client has gone.
func (c *simCall) hang() bool {
	c.mu.Unlock()
	io.Copy(io.Discard, c.r.Body) // only then a server sees that its client has gone
	select {
	case <-c.r.Context().Done():
	case <-time.After(2 * time.Minute):
	}
	c.mu.Lock()
	return true
}

// cut ends the connection without an answer.
func (c *simCall) cut() bool {
	if h, ok := c.w.(http.Hijacker); ok {
		if conn, _, err := h.Hijack(); err == nil {
			conn.Close()
		}
	}
	return true
}

func (c *simCall) status(code int) bool {
	c.w.WriteHeader(code)
	return true
}
