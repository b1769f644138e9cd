package power

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"mayfly/internal/pki"
	"mayfly/internal/sealed"
	"mayfly/inventory"
	"mayfly/rebuild/offer"
)

// quickPace keeps every bound, in less time.
var quickPace = pace{first: 20 * time.Millisecond, most: 40 * time.Millisecond, settle: 100 * time.Millisecond, attempts: 3, again: time.Millisecond}

// testPlace is a place whose log is kept.
func testPlace(t *testing.T) (Place, *bytes.Buffer) {
	t.Helper()
	dir := t.TempDir()
	log := new(bytes.Buffer)
	p := Place{Dir: filepath.Join(dir, "machines"), Offers: offer.Dir(filepath.Join(dir, "offers")), Base: "http://192.0.2.1:8080",
		Secrets: sealed.Store{Dir: filepath.Join(dir, "secrets"), Identity: filepath.Join(dir, "secrets.key")},
		Plugins: filepath.Join(dir, "plugins"), Log: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	return p, log
}

// bootFor is a boot with every file that a remote machine may want.
func bootFor(t *testing.T, epoch uint64) Boot {
	t.Helper()
	dir := t.TempDir()
	file := func(name string) File {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(name+" of the release"), 0o600); err != nil {
			t.Fatal(err)
		}
		return signed(t, path)
	}
	return Boot{Epoch: epoch, Kernel: file("kernel"), Stub: file("stub"), UKI: file("uki"), Trust: []byte("{}"), Ticket: []byte("secret ticket"),
		TicketSig: []byte("sig"), Cmdline: "console=ttyS0", NotAfter: time.Now().Add(time.Hour)}
}

func newRedfish(t *testing.T, sim *redfishSim, change func(*inventory.Power)) (*remote, Place, *bytes.Buffer) {
	t.Helper()
	p, log := testPlace(t)
	s := inventory.Server{Name: "se-1", Address: netip.MustParsePrefix("192.0.2.11/24"), Power: inventory.Power{Driver: inventory.DriverRedfish,
		Address: sim.address(), User: sim.user, Password: "sealed:bmc", Fingerprint: sim.fingerprint(), Boot: inventory.BootMedia}}
	if err := p.Secrets.Seal("bmc", []byte(sim.secret)); err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(&s.Power)
	}
	d, err := Open(s, p)
	if err != nil {
		t.Fatal(err)
	}
	r := d.(*remote)
	r.pace = quickPace
	r.bmc.(*redfish).client.ration.every = time.Millisecond // so that the faults of BMCs are seen, not the ration
	return r, p, log
}

func TestRedfish(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*inventory.Power)
		target string
	}{
		"virtual media": {nil, targetUSB},
		"http boot":     {func(p *inventory.Power) { p.Boot = inventory.BootHTTP }, targetHTTP},
		"pxe, basic":    {func(p *inventory.Power) { p.Boot, p.Auth = inventory.BootPXE, inventory.AuthBasic }, targetPXE},
		"system named":  {func(p *inventory.Power) { p.System = "1" }, targetUSB},
	} {
		t.Run(name, func(t *testing.T) {
			sim := newRedfishSim(t)
			r, p, _ := newRedfish(t, sim, tt.change)
			ctx := t.Context()
			if err := r.Off(ctx); err != nil {
				t.Fatalf("Off of a machine that is off: %v", err)
			}
			boot := bootFor(t, 7)
			if err := r.SetBoot(ctx, boot); err != nil {
				t.Fatal(err)
			}
			o, err := p.Offers.Of("se-1", time.Now())
			if err != nil {
				t.Fatal(err)
			}
			medium := p.Base + o.Path(offer.MediumFile)
			sim.do(func() {
				if sim.boot.Target != tt.target || sim.boot.Enabled != overrideOnce || sim.boot.Mode != "UEFI" {
					t.Errorf("the next boot is %+v, want once from %s", sim.boot, tt.target)
				}
				if tt.target == targetUSB && sim.images[simUSB] != medium || tt.target == targetHTTP && sim.boot.URI != medium {
					t.Errorf("the medium is %v, or %s; want %s", sim.images, sim.boot.URI, medium)
				}
				if sim.on {
					t.Error("it is on before On")
				}
			})
			if err := r.On(ctx, boot); err != nil {
				t.Fatal(err)
			}
			count := func() (n int) { sim.do(func() { n = sim.commands }); return n }
			before := count()
			if err := errors.Join(r.On(ctx, boot), r.SetBoot(ctx, boot)); err != nil {
				t.Errorf("On of a machine that is on in this life: %v", err)
			}
			if st, err := r.Status(ctx); err != nil || st != (Status{On: true, Epoch: 7}) {
				t.Errorf("Status: %+v, %v", st, err)
			}
			sim.do(func() {
				for _, c := range sim.log[before:] {
					if strings.Contains(c, "Actions") || strings.HasPrefix(c, "PATCH") {
						t.Errorf("asked twice, it wrote: %s", c)
					}
				}
			})
			if _, err := r.Console(ctx); !errors.Is(err, ErrNoConsole) {
				t.Errorf("Console: %v", err)
			}
			if err := errors.Join(r.Joined(ctx), r.Joined(ctx)); err != nil {
				t.Fatal(err)
			}
			if _, err := p.Offers.Of("se-1", time.Now()); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("what it booted from is still offered: %v", err)
			}
			if err := r.On(ctx, bootFor(t, 8)); Reason(err) != OnAlready {
				t.Errorf("On in another life: %v", err)
			}
			if err := r.SetBoot(ctx, bootFor(t, 8)); Reason(err) != OnAlready {
				t.Errorf("SetBoot for another life under a machine that is on: %v", err)
			}
			if err := r.Off(ctx); err != nil {
				t.Fatal(err)
			}
			if st, err := r.Status(ctx); err != nil || st != (Status{}) {
				t.Errorf("Status: %+v, %v", st, err)
			}
			sim.do(func() {
				if sim.on || sim.images[simUSB] != "" || len(sim.sessions) != 0 || sim.most > 1 {
					t.Errorf("left: on %v, media %v, %d sessions, %d at once", sim.on, sim.images, len(sim.sessions), sim.most)
				}
			})
		})
	}
}

// TestRedfishFaults: each way in which a BMC has been seen to be wrong is found out, with a reason of its own.
func TestRedfishFaults(t *testing.T) {
	reset := func(c *simCall) bool { return c.is("POST", "ComputerSystem.Reset") }
	off := func(ctx context.Context, r *remote, _ Boot) error { return r.Off(ctx) }
	set := func(ctx context.Context, r *remote, b Boot) error { return r.SetBoot(ctx, b) }
	on := func(ctx context.Context, r *remote, b Boot) error { return r.On(ctx, b) }
	status := func(ctx context.Context, r *remote, _ Boot) error { _, err := r.Status(ctx); return err }
	for name, tt := range map[string]struct {
		do     func(context.Context, *remote, Boot) error
		isOn   bool
		change func(*inventory.Power)
		fault  func(*simCall) bool
		want   string
		text   string
	}{
		"off: 200, and nothing happens": {off, true, nil, func(c *simCall) bool { return reset(c) && c.status(200) }, NotApplied, "still on"},
		"on: 204, and nothing happens":  {on, false, nil, func(c *simCall) bool { return reset(c) && c.status(204) }, NotApplied, "still off"},
		"the boot is taken, and is another": {set, false, nil, func(c *simCall) bool {
			return c.is("PATCH", simSystem) && c.status(204)
		}, BootNotApplied, "reports"},
		"a stale boot order": {set, false, nil, func(c *simCall) bool {
			c.boot = bootSource{Enabled: overrideOnce, Target: targetUSB, Mode: "UEFI"} // whatever is written
			return false
		}, BootStale, "still reported"},
		"off is said, and the chassis disagrees": {status, true, nil, func(c *simCall) bool {
			if !c.is("GET", simChassis) {
				return false
			}
			c.json(c.w, map[string]string{"PowerState": "Off"})
			return true
		}, StateWrong, "chassis"},
		"said to be off, and is on": {func(ctx context.Context, r *remote, _ Boot) error {
			// The state is wrong only in what is read: the machine has to be commanded off all the same.
			return r.Off(ctx)
		}, true, nil, func(c *simCall) bool {
			if !c.is("GET", simSystem) {
				return false
			}
			s := c.system()
			s["PowerState"] = "Off"
			c.json(c.w, s)
			return true
		}, "", ""},
		"no power state": {status, true, nil, func(c *simCall) bool {
			if !c.is("GET", simSystem) {
				return false
			}
			s := c.system()
			delete(s, "PowerState")
			c.json(c.w, s)
			return true
		}, StateUnknown, "unknown"},
		"for ever powering off": {off, true, nil, func(c *simCall) bool {
			if !c.is("GET", simSystem) {
				return false
			}
			s := c.system()
			s["PowerState"] = "PoweringOff"
			c.json(c.w, s)
			return true
		}, StateUnknown, "changing"},
		"frozen after a few commands": {off, true, nil, func(c *simCall) bool { return c.number > 4 && c.hang() }, Frozen, ""},
		"frozen at once":              {status, true, nil, func(c *simCall) bool { return c.hang() }, Frozen, ""},
		"slow answer": {status, true, nil, func(c *simCall) bool {
			c.w.Header().Set("Content-Length", "1000")
			c.w.WriteHeader(200)
			io.WriteString(c.w, "{")
			http.NewResponseController(c.w).Flush()
			return c.hang()
		}, Frozen, ""},
		"503 for ever": {status, true, nil, func(c *simCall) bool { return c.status(503) }, Busy, "503"},
		"503 twice": {off, true, nil, func() func(c *simCall) bool {
			left := 2
			return func(c *simCall) bool { left--; return left >= 0 && c.status(503) }
		}(), "", ""},
		"503 to the command": {off, true, nil, func() func(c *simCall) bool {
			left := 2
			return func(c *simCall) bool {
				if !reset(c) {
					return false
				}
				left--
				return left >= 0 && c.status(503)
			}
		}(), "", ""},
		"huge answer": {status, true, nil, func(c *simCall) bool {
			c.w.WriteHeader(200)
			for range 40 {
				if _, err := c.w.Write(make([]byte, 64<<10)); err != nil {
					return true
				}
			}
			return true
		}, Oversize, ""},
		"redirect": {status, true, nil, func(c *simCall) bool {
			c.w.Header().Set("Location", "https://192.0.2.66/redfish/v1/Systems")
			return c.is("GET", "Systems") && c.status(307)
		}, Redirected, "307"},
		"wrong certificate, by fingerprint": {status, true, func(p *inventory.Power) { p.Fingerprint = strings.Repeat("00", 32) }, nil, Certificate, "fingerprint"},
		"wrong certificate, by CA":          {status, true, func(p *inventory.Power) { p.Fingerprint, p.CA = "", otherCA(t) }, nil, Certificate, ""},
		"wrong password":                    {status, true, func(p *inventory.Power) { p.User = "other" }, nil, Denied, "401"},
		"no sealed password":                {status, true, func(p *inventory.Power) { p.Password = "sealed:other" }, nil, SecretMissing, ""},
		"cuts the connection":               {status, true, nil, func(c *simCall) bool { return c.cut() }, Reset, ""},
		"cuts it once after the command": {off, true, nil, func() func(c *simCall) bool {
			done := false
			return func(c *simCall) bool {
				if !reset(c) || done {
					return false
				}
				done, c.on = true, false
				return c.cut()
			}
		}(), "", ""},
		"no JSON": {status, true, nil, func(c *simCall) bool {
			return c.is("GET", "Systems") && c.status(200)
		}, Malformed, ""},
		"a key twice": {status, true, nil, func(c *simCall) bool {
			if !c.is("GET", simSystem) {
				return false
			}
			io.WriteString(c.w, `{"PowerState":"On","powerstate":"Off"}`)
			return true
		}, Malformed, "twice"},
		"leads elsewhere": {status, true, nil, func(c *simCall) bool {
			if !c.is("GET", "Systems") {
				return false
			}
			c.json(c.w, map[string]any{"Members": []map[string]string{{"@odata.id": "//192.0.2.66/redfish/v1/Systems/1"}}})
			return true
		}, Malformed, "no path"},
		"several systems": {status, true, nil, func(c *simCall) bool {
			if !c.is("GET", "Systems") {
				return false
			}
			c.json(c.w, map[string]any{"Members": []map[string]string{{"@odata.id": simSystem}, {"@odata.id": "/redfish/v1/Systems/2"}}})
			return true
		}, Refused, "power.system"},
		"no such system": {status, true, func(p *inventory.Power) { p.System = "9" }, nil, Refused, "no system"},
		"media taken, drive empty": {set, false, nil, func(c *simCall) bool {
			return c.is("POST", "InsertMedia") && c.status(204)
		}, MediaNotInserted, ""},
		"media inserted, not connected": {set, false, nil, func(c *simCall) bool {
			if !c.is("GET", simUSB) || c.images[simUSB] == "" {
				return false
			}
			c.json(c.w, map[string]any{"Image": c.images[simUSB], "Inserted": true, "ConnectedVia": "NotConnected", "MediaTypes": []string{"USBStick"}})
			return true
		}, MediaNotConnected, ""},
		"old media stay": {set, false, nil, func(c *simCall) bool {
			c.images[simUSB] = "http://192.0.2.1:8080/old"
			return false
		}, MediaNotEjected, ""},
		"no drive": {set, false, nil, func(c *simCall) bool {
			if !c.is("GET", "VirtualMedia") {
				return false
			}
			c.json(c.w, map[string]any{"Members": []any{}})
			return true
		}, BootUnsupported, "no drive"},
		"target not offered": {set, false, func(p *inventory.Power) { p.Boot = inventory.BootHTTP }, func(c *simCall) bool {
			if !c.is("GET", simSystem) {
				return false
			}
			s := c.system()
			s["Boot"] = map[string]any{"BootSourceOverrideTarget@Redfish.AllowableValues": []string{"Pxe"}}
			c.json(c.w, s)
			return true
		}, BootUnsupported, "Pxe"},
		"refuses": {on, false, nil, func(c *simCall) bool { return reset(c) && c.status(400) }, Refused, "400"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sim := newRedfishSim(t)
			r, _, log := newRedfish(t, sim, tt.change)
			sim.do(func() { sim.on, sim.fault = tt.isOn, tt.fault })
			limit := time.Minute
			if tt.want == Frozen {
				limit = 4 * time.Second // within which a busy machine connects
			}
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			err := tt.do(ctx, r, bootFor(t, 7))
			if Reason(err) != tt.want || (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %v, want reason %q with %q", err, tt.want, tt.text)
			}
			sim.do(func() {
				if name == "said to be off, and is on" && sim.on {
					t.Error("the machine is still on")
				}
				if sim.commands > 60 {
					t.Errorf("%d commands", sim.commands)
				}
			})
			if text := fmt.Sprint(err) + log.String(); strings.Contains(text, sim.secret) {
				t.Errorf("the password is told: %s", text)
			}
		})
	}
}

// otherCA is one that has issued nothing here.
func otherCA(t *testing.T) string {
	t.Helper()
	ca, _, err := pki.NewCA("other.test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return string(ca)
}

// TestRedfishUnreachable: nothing takes connections.
func TestRedfishUnreachable(t *testing.T) {
	sim := newRedfishSim(t)
	r, _, _ := newRedfish(t, sim, nil)
	sim.server.Close()
	if _, err := r.Status(t.Context()); Reason(err) != Unreachable {
		t.Errorf("got %v", err)
	}
}

// TestRedfishCA: a CA in the inventory is believed, for the BMC's own address.
func TestRedfishCA(t *testing.T) {
	sim := newRedfishSim(t)
	r, _, _ := newRedfish(t, sim, func(p *inventory.Power) { p.Fingerprint, p.CA = "", sim.ca() })
	if st, err := r.Status(t.Context()); err != nil || st.On {
		t.Errorf("got %+v, %v", st, err)
	}
}

// TestRemoteDies: a driver that ended anywhere goes on where it was.
func TestRemoteDies(t *testing.T) {
	sim := newRedfishSim(t)
	r, p, _ := newRedfish(t, sim, nil)
	boot := bootFor(t, 7)
	if err := r.SetBoot(t.Context(), boot); err != nil {
		t.Fatal(err)
	}
	again := func() *remote {
		d, err := Open(r.server, p)
		if err != nil {
			t.Fatal(err)
		}
		n := d.(*remote)
		n.pace = quickPace
		return n
	}
	// It died between note and deed: the machine is off, and this life was begun.
	if err := r.save(begun{Epoch: 7, On: true}); err != nil {
		t.Fatal(err)
	}
	if st, err := again().Status(t.Context()); err != nil || st.On {
		t.Errorf("got %+v, %v", st, err)
	}
	if err := again().On(t.Context(), boot); err != nil {
		t.Fatal(err)
	}
	if st, err := again().Status(t.Context()); err != nil || st != (Status{On: true, Epoch: 7}) {
		t.Errorf("got %+v, %v", st, err)
	}
	// Somebody else's: nobody here has begun it.
	if err := r.remove(); err != nil {
		t.Fatal(err)
	}
	if st, err := again().Status(t.Context()); err != nil || st != (Status{On: true}) {
		t.Errorf("got %+v, %v", st, err)
	}
}

// TestNewerLife: who was stopped before it switched a life off, and comes late, leaves the next one alone; the life itself and later ones' owners do not.
func TestNewerLife(t *testing.T) {
	sim := newRedfishSim(t)
	r, _, _ := newRedfish(t, sim, nil)
	boot := bootFor(t, 7)
	if err := r.On(t.Context(), boot); err != nil {
		t.Fatal(err)
	}
	if err := r.OffThrough(t.Context(), 6); Reason(err) != NewerLife {
		t.Errorf("life 6 is to end: got %v, want %s", err, NewerLife)
	}
	if st, err := r.Status(t.Context()); err != nil || st != (Status{On: true, Epoch: 7}) {
		t.Errorf("got %+v, %v, want life 7 running", st, err)
	}
	if err := r.OffThrough(t.Context(), 7); err != nil {
		t.Fatal(err)
	}
	if st, err := r.Status(t.Context()); err != nil || st.On {
		t.Errorf("got %+v, %v, want it off", st, err)
	}
	if err := r.OffThrough(t.Context(), 6); err != nil { // off is off
		t.Errorf("off already: %v", err)
	}
}

// TestSecretNowhere: the password is in no error, no log and no file but the sealed one, whatever happens.
func TestSecretNowhere(t *testing.T) {
	sim := newRedfishSim(t)
	r, p, log := newRedfish(t, sim, nil)
	var told []string
	for _, err := range []error{r.SetBoot(t.Context(), bootFor(t, 1)), r.On(t.Context(), bootFor(t, 1)), r.Off(t.Context())} {
		told = append(told, fmt.Sprintf("%v %+v %#v", err, err, err))
	}
	secret, err := p.Secrets.Open("sealed:bmc")
	if err != nil || secret.Reveal() != sim.secret {
		t.Fatalf("%v", err)
	}
	data, err := json.Marshal(struct{ S any }{secret})
	if err != nil {
		t.Fatal(err)
	}
	p.Log.Error("x", "secret", secret, "all", fmt.Sprintf("%v %s %q %x %#v %+v", secret, secret, secret, secret, secret, struct{ S sealed.Secret }{secret}))
	told = append(told, string(data), log.String(), secret.Hide("said "+sim.secret))
	err = filepath.WalkDir(filepath.Dir(p.Dir), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		told = append(told, string(data))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if i := slices.IndexFunc(told, func(s string) bool {
		return strings.Contains(s, sim.secret) || strings.Contains(s, fmt.Sprintf("%x", sim.secret))
	}); i >= 0 {
		t.Errorf("the password is told: %s", told[i])
	}
	if !strings.Contains(log.String(), "(sealed)") {
		t.Error("nothing was logged, so the test proves nothing")
	}
}

func FuzzStrictJSON(f *testing.F) {
	for _, s := range []string{`{"a":1}`, `[{"a":[1,2,{"b":null}]}]`, `{"a":1,"A":2}`, `{} {}`, strings.Repeat("[", 40)} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var v computerSystem
		if strictJSON(data) == nil && !json.Valid(data) {
			t.Errorf("accepted %q", data)
		}
		_ = json.Unmarshal(data, &v)
	})
}
