package power

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"syscall"
	"time"

	ipmiclient "github.com/bougou/go-ipmi/pkg/client"
	"github.com/bougou/go-ipmi/pkg/command/chassis"
	ipmitypes "github.com/bougou/go-ipmi/pkg/types"

	"mayfly/internal/sealed"
	"mayfly/inventory"
)

// Bounds of IPMI, which is datagrams: each is sent again until it is answered, or given up.
const (
	ipmiAnswer  = 2 * time.Second
	ipmiResent  = 2
	ipmiConnect = 20 * time.Second
	ipmiCall    = 10 * time.Second
	ipmiOpening = 5 // commands that a session begins with
)

// Completion codes (IPMI 2.0, table 5-2).
const (
	ipmiCodeBusy      = 0xc0
	ipmiCodeSpace     = 0xc4
	ipmiCodeUnready   = 0xd0
	ipmiCodeDuplicate = 0xcf
	ipmiCodeDenied    = 0xd4
)

// ipmi speaks IPMI 2.0 (RMCP+, "lanplus") with cipher suite 17 or 3; nothing weaker is taken. A session lasts for one operation.
type ipmi struct {
	power    inventory.Power
	password func() (sealed.Secret, error)
	ration   *ration

	session *ipmiclient.Client
}

var _ bmc = (*ipmi)(nil)

// console: IPMI's serial over LAN tells only what is said while somebody listens.
func (d *ipmi) console(context.Context) ([]byte, error) { return nil, ErrNoConsole }

// joined: what stands in a BMC's drive, or answers to PXE, is the site's.
func (d *ipmi) joined(context.Context) error { return nil }

// open begins a session, unless there is one.
func (d *ipmi) open(ctx context.Context) error {
	if d.session != nil {
		return nil
	}
	password, err := d.password()
	if err != nil {
		return err
	}
	a, err := netip.ParseAddrPort(d.power.Address)
	if err != nil {
		return err
	}
	for range ipmiOpening {
		if err := d.ration.take(ctx); err != nil {
			return err
		}
	}
	c, err := ipmiclient.NewClient(a.Addr().String(), int(a.Port()), d.power.User, password.Reveal())
	if err != nil {
		return failf(Refused, "%s", password.Hide(err.Error()))
	}
	c = c.WithInterface(ipmiclient.InterfaceLanplus).WithTimeout(ipmiAnswer).WithRetry(ipmiResent).
		WithCipherSuiteID(ipmitypes.CipherSuiteID17, ipmitypes.CipherSuiteID3).WithMaxPrivilegeLevel(ipmitypes.PrivilegeLevelAdministrator)
	connecting, cancel := context.WithTimeout(ctx, ipmiConnect)
	defer cancel()
	if err := c.Connect(connecting); err != nil {
		text := printable(password.Hide(err.Error()))
		switch {
		case errors.Is(err, syscall.ECONNREFUSED), strings.Contains(text, "refused"), strings.Contains(text, "Get Channel Authentication"):
			return failf(Unreachable, "%s", text)
		case connecting.Err() != nil, strings.Contains(text, "timeout"):
			return failf(Frozen, "%s", text)
		}
		return failf(Denied, "%s", text)
	}
	d.session = c
	return nil
}

func (d *ipmi) done(ctx context.Context) {
	if d.session == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), ipmiCall)
	defer cancel()
	_ = d.session.Close(ctx) // a session that cannot be ended ends by itself
	d.session = nil
}

// call sends one command in the session.
func (d *ipmi) call(ctx context.Context, what string, do func(ctx context.Context, c *ipmiclient.Client) error) error {
	if err := d.open(ctx); err != nil {
		return err
	}
	if err := d.ration.take(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, ipmiCall)
	defer cancel()
	err := do(ctx, d.session)
	if err == nil {
		return nil
	}
	if e := (*ipmitypes.ResponseError)(nil); errors.As(err, &e) {
		reason := Refused
		switch e.CompletionCode() {
		case ipmiCodeBusy, ipmiCodeSpace, ipmiCodeDuplicate:
			reason = Busy
		case ipmiCodeDenied:
			reason = Denied
		case ipmiCodeUnready:
			reason = Busy
		}
		return failf(reason, "%s: %s", what, printable(err.Error()))
	}
	reason := Frozen // it has answered in this session before
	if errors.Is(err, syscall.ECONNREFUSED) {
		reason = Unreachable
	}
	return failf(reason, "%s: %s", what, printable(err.Error()))
}

func (d *ipmi) state(ctx context.Context) (powerState, error) {
	var s *chassis.GetChassisStatusResponse
	err := d.call(ctx, "chassis status", func(ctx context.Context, c *ipmiclient.Client) (err error) {
		s, err = c.GetChassisStatus(ctx)
		return err
	})
	switch {
	case err != nil:
		return stateUnknown, err
	case s.PowerIsOn:
		return stateOn, nil
	}
	return stateOff, nil
}

func (d *ipmi) switchTo(ctx context.Context, on bool) error {
	control := chassis.ChassisControlPowerDown
	if on {
		control = chassis.ChassisControlPowerUp
	}
	return d.call(ctx, "chassis control", func(ctx context.Context, c *ipmiclient.Client) error {
		_, err := c.ChassisControl(ctx, control)
		return err
	})
}

// ipmiDevices are the boot devices, by the inventory's word.
var ipmiDevices = map[string]ipmitypes.BootDeviceSelector{
	inventory.BootPXE:  ipmitypes.BootDeviceSelectorForcePXE,
	inventory.BootCD:   ipmitypes.BootDeviceSelectorForceCDROM,
	inventory.BootNone: ipmitypes.BootDeviceSelectorNoOverride,
}

// setBoot writes the boot flags for the next boot only, and reads them back.
func (d *ipmi) setBoot(ctx context.Context, _ nextBoot) error {
	device, ok := ipmiDevices[d.power.Boot]
	if !ok {
		return failf(BootUnsupported, "ipmi cannot boot from %q", d.power.Boot)
	}
	before, err := d.flags(ctx)
	if d.power.Boot == inventory.BootNone && Reason(err) == Refused {
		return nil // it knows no next boot, and none is wanted
	}
	if err != nil {
		return err
	}
	// What reads as wanted before anything was written proves nothing: it is taken back first.
	if device != ipmitypes.BootDeviceSelectorNoOverride && before.BootDeviceSelector == device {
		if err := d.write(ctx, ipmitypes.BootDeviceSelectorNoOverride); err != nil {
			return err
		}
		cleared, err := d.flags(ctx)
		if err != nil {
			return err
		}
		if cleared.BootDeviceSelector == device {
			return failf(BootStale, "the next boot was taken back, and is still reported as %s", device)
		}
		before.BootFlagsValid = before.BootFlagsValid || cleared.BootFlagsValid
	}
	if err := d.write(ctx, device); err != nil {
		return err
	}
	got, err := d.flags(ctx)
	if err != nil {
		return err
	}
	// Some BMCs never report that the flags are valid. One that has reported it, and does so no more, has dropped them.
	valid := got.BootFlagsValid || !before.BootFlagsValid
	if got.BootDeviceSelector != device || device != ipmitypes.BootDeviceSelectorNoOverride && (got.Persist || !valid) {
		return failf(BootNotApplied, "it took %s, and reports %s (valid %v, for every boot %v)", device, got.BootDeviceSelector, got.BootFlagsValid, got.Persist)
	}
	return nil
}

func (d *ipmi) write(ctx context.Context, device ipmitypes.BootDeviceSelector) error {
	return d.call(ctx, "set boot options", func(ctx context.Context, c *ipmiclient.Client) error {
		return c.SetSystemBootOptionsParamFor(ctx, &ipmitypes.BootOptionParam_BootFlags{
			BootFlagsValid: true, BIOSBootType: ipmitypes.BIOSBootTypeEFI, BootDeviceSelector: device})
	})
}

func (d *ipmi) flags(ctx context.Context) (got ipmitypes.BootOptionParam_BootFlags, err error) {
	err = d.call(ctx, "get boot options", func(ctx context.Context, c *ipmiclient.Client) error {
		return c.GetSystemBootOptionsParamFor(ctx, &got)
	})
	return got, err
}
