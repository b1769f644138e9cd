package power

import (
	"context"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"mayfly/inventory"
)

// Specification constants: Redfish (DMTF DSP0266, DSP0268), as far as it is used.
const (
	redfishSystems  = "/redfish/v1/Systems"
	redfishSessions = "/redfish/v1/SessionService/Sessions"
	overrideOnce    = "Once"
	overrideOff     = "Disabled"
)

// Targets of BootSourceOverrideTarget.
const (
	targetNone = "None"
	targetPXE  = "Pxe"
	targetCD   = "Cd"
	targetUSB  = "Usb"
	targetHTTP = "UefiHttp"
)

// localPath is a path as a service may name one of its own: nothing that leads elsewhere.
var localPath = regexp.MustCompile(`^/redfish/v1(/[A-Za-z0-9._:~#-]+){1,12}/?$`)

// redfish speaks to a BMC's Redfish service. Each operation has a session of its own, which it ends: BMCs have few.
type redfish struct {
	power  inventory.Power
	client *redfishClient
	path   string // of the system, once it was found
}

var _ bmc = (*redfish)(nil)

// link is a reference to another resource.
type link struct {
	ID string `json:"@odata.id"`
}

type collection struct {
	Members []link `json:"Members"`
}

type action struct {
	Target string `json:"target"`
}

// bootSource is the override of the next boot.
type bootSource struct {
	Enabled string `json:"BootSourceOverrideEnabled"`
	Target  string `json:"BootSourceOverrideTarget"`
	Mode    string `json:"BootSourceOverrideMode,omitempty"`
	URI     string `json:"HttpBootUri,omitempty"`
}

// computerSystem is what is read of a system.
type computerSystem struct {
	ID         string `json:"Id"`
	Path       string `json:"@odata.id"`
	ETag       string `json:"@odata.etag"`
	PowerState string `json:"PowerState"`
	Boot       struct {
		bootSource
		Targets []string `json:"BootSourceOverrideTarget@Redfish.AllowableValues"`
	} `json:"Boot"`
	VirtualMedia link `json:"VirtualMedia"`
	Links        struct {
		Chassis   []link `json:"Chassis"`
		ManagedBy []link `json:"ManagedBy"`
	} `json:"Links"`
	Actions struct {
		Reset action `json:"#ComputerSystem.Reset"`
	} `json:"Actions"`
}

// chassisPower is what a system's chassis says of the power, where it does.
type chassisPower struct {
	PowerState string `json:"PowerState"`
}

func (d *redfish) console(context.Context) ([]byte, error) { return nil, ErrNoConsole }

// state reads the system's power, and holds the chassis' against it: one BMC alone has been seen to be wrong about it.
func (d *redfish) state(ctx context.Context) (powerState, error) {
	s, err := d.system(ctx)
	if err != nil {
		return stateUnknown, err
	}
	state := redfishPower(s.PowerState)
	if state != stateOn || len(s.Links.Chassis) != 1 {
		return state, nil
	}
	var c chassisPower
	if err := d.client.get(ctx, s.Links.Chassis[0].ID, &c); err != nil {
		return stateUnknown, err
	}
	// A chassis with several systems stays on: only one that is off around a system that is on is wrong for certain.
	if redfishPower(c.PowerState) == stateOff {
		return stateUnknown, failf(StateWrong, "the system is said to be on, and its chassis off")
	}
	return state, nil
}

func redfishPower(s string) powerState {
	switch s {
	case "On":
		return stateOn
	case "Off":
		return stateOff
	case "PoweringOn", "PoweringOff", "Paused":
		return stateChanging
	}
	return stateUnknown
}

func (d *redfish) switchTo(ctx context.Context, on bool) error {
	kind := "ForceOff"
	if on {
		kind = "On"
	}
	s, err := d.system(ctx)
	if err != nil {
		return err
	}
	if s.Actions.Reset.Target == "" {
		return failf(Malformed, "the system has no action to reset it")
	}
	return d.client.post(ctx, s.Actions.Reset.Target, map[string]string{"ResetType": kind})
}

// done ends the session of an operation.
func (d *redfish) done(ctx context.Context) { d.client.close(ctx) }

// system reads the one that the inventory names, or the only one.
func (d *redfish) system(ctx context.Context) (computerSystem, error) {
	if err := d.client.open(ctx); err != nil {
		return computerSystem{}, err
	}
	if d.path == "" {
		path, err := d.find(ctx)
		if err != nil {
			return computerSystem{}, err
		}
		d.path = path
	}
	var s computerSystem
	err := d.client.get(ctx, d.path, &s)
	s.Path = d.path
	return s, err
}

func (d *redfish) find(ctx context.Context) (string, error) {
	var all collection
	if err := d.client.get(ctx, redfishSystems, &all); err != nil {
		return "", err
	}
	at := slices.IndexFunc(all.Members, func(l link) bool {
		return d.power.System != "" && strings.HasSuffix(strings.TrimSuffix(l.ID, "/"), "/"+d.power.System)
	})
	switch {
	case d.power.System == "" && len(all.Members) == 1:
		at = 0
	case d.power.System == "":
		return "", failf(Refused, "%d systems are behind this BMC: power.system has to name one", len(all.Members))
	case at < 0:
		return "", failf(Refused, "no system %q is behind this BMC", d.power.System)
	}
	return all.Members[at].ID, nil
}

func (d *redfish) setBoot(ctx context.Context, next nextBoot) error {
	s, err := d.system(ctx)
	if err != nil {
		return err
	}
	want := bootSource{Enabled: overrideOnce, Mode: "UEFI"}
	switch d.power.Boot {
	case inventory.BootPXE:
		want.Target = targetPXE
	case inventory.BootHTTP:
		if next.medium == "" {
			return failf(MediumMissing, "the release has no unified kernel image, which HTTP boot takes")
		}
		want.Target, want.URI = targetHTTP, next.medium
	default:
		if next.medium == "" {
			return failf(MediumMissing, "the release has no unified kernel image, which virtual media take")
		}
		if want.Target, err = d.insert(ctx, s, next.medium); err != nil {
			return err
		}
	}
	if len(s.Boot.Targets) > 0 && !slices.Contains(s.Boot.Targets, want.Target) {
		return failf(BootUnsupported, "the system can boot once from %s, not from %s", printable(strings.Join(s.Boot.Targets, ", ")), want.Target)
	}
	return d.override(ctx, s, want)
}

// override writes the next boot and reads it back. What reads as wanted before anything was written proves nothing: it is taken back first.
func (d *redfish) override(ctx context.Context, s computerSystem, want bootSource) error {
	if same(s.Boot.bootSource, want) {
		cleared, err := d.write(ctx, s, bootSource{Enabled: overrideOff, Target: targetNone})
		if err != nil {
			return err
		}
		if same(cleared.Boot.bootSource, want) {
			return failf(BootStale, "the next boot was taken back, and is still reported as %s %s", want.Enabled, want.Target)
		}
		s = cleared
	}
	got, err := d.write(ctx, s, want)
	if err != nil {
		return err
	}
	if b := got.Boot.bootSource; !same(b, want) {
		return failf(BootNotApplied, "it took %s %s, and reports %s %s", want.Enabled, want.Target, printable(b.Enabled), printable(b.Target))
	}
	return nil
}

func (d *redfish) write(ctx context.Context, s computerSystem, b bootSource) (computerSystem, error) {
	if err := d.client.patch(ctx, s.Path, s.ETag, map[string]bootSource{"Boot": b}); err != nil {
		return computerSystem{}, err
	}
	var again computerSystem
	err := d.client.get(ctx, s.Path, &again)
	again.Path = s.Path
	return again, err
}

// same compares what matters: some BMCs leave out the mode, and the URI where it is not in use.
func same(got, want bootSource) bool {
	return got.Enabled == want.Enabled && got.Target == want.Target && (got.Mode == "" || want.Mode == "" || got.Mode == want.Mode) &&
		(want.Target != targetHTTP || got.URI == want.URI)
}

// redfishResponse is the part of an answer that matters here.
type redfishResponse struct {
	status int
	header http.Header
	body   []byte
}
