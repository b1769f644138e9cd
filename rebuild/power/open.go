package power

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"path/filepath"
	"sync"

	"mayfly/internal/sealed"
	"mayfly/inventory"
	"mayfly/rebuild/offer"
)

// Place is where drivers work: directories of the controller, and its boot port.
type Place struct {
	Dir     string       // of the machines: what each driver has begun
	Offers  offer.Dir    // what remote machines boot from
	Base    string       // "http://ADDRESS:PORT" of the boot port, where offers are handed out
	Secrets sealed.Store // the passwords of BMCs
	Plugins string       // directory of a site's own drivers
	Orders  Orders       // the way to servers without a BMC; may be nil where none is needed
	Log     *slog.Logger
}

// Open returns the driver that the inventory names for a server.
func Open(s inventory.Server, p Place) (Driver, error) {
	if s.Power.Driver == inventory.DriverQEMU {
		return OpenQEMU(s, p.Dir, Options{}, p.Log)
	}
	if s.Power.Driver == inventory.DriverContainer {
		return OpenContainer(s, p.Dir, p.Log)
	}
	if s.Power.Driver == inventory.DriverOrder {
		return &ordered{server: s, dir: filepath.Join(p.Dir, s.Name), orders: p.Orders, pace: usualOrderPace, log: p.Log,
			offer: func(ctx context.Context, boot Boot) (nextBoot, error) { return p.offer(ctx, s, boot) },
			take:  func() error { return p.Offers.Withdraw(s.Name) }}, nil
	}
	b, err := p.open(s)
	if err != nil {
		return nil, fmt.Errorf("server %s: %w", s.Name, err)
	}
	return p.remote(s, b), nil
}

func (p Place) open(s inventory.Server) (bmc, error) {
	switch s.Power.Driver {
	case inventory.DriverRedfish:
		return &redfish{power: s.Power, client: newRedfishClient(s.Power, p.password(s.Power), p.ration(s))}, nil
	case inventory.DriverIPMI:
		return &ipmi{power: s.Power, password: p.password(s.Power), ration: p.ration(s)}, nil
	case inventory.DriverExec:
		return &program{server: s, password: p.password(s.Power), ration: p.ration(s), ask: execDriver(s.Power)}, nil
	case inventory.DriverPlugin:
		return &program{server: s, password: p.password(s.Power), ration: p.ration(s), ask: pluginDriver(s.Power, p.Plugins)}, nil
	}
	return nil, fmt.Errorf("power driver %q is not known", s.Power.Driver)
}

// ration is shared by all servers behind one BMC; a site's own program has one for each server.
func (p Place) ration(s inventory.Server) *ration {
	if a, ok := s.Power.BMCAddress(); ok {
		return newRation(p.Dir, a.Addr().String())
	}
	return newRation(p.Dir, "server "+s.Name)
}

// password opens the sealed password when it is needed, once.
func (p Place) password(w inventory.Power) func() (sealed.Secret, error) {
	return sync.OnceValues(func() (sealed.Secret, error) {
		if w.Password == "" {
			return sealed.Secret{}, nil
		}
		secret, err := p.Secrets.Open(w.Password)
		if err != nil {
			return secret, &Failure{SecretMissing, err}
		}
		return secret, nil
	})
}

func (p Place) remote(s inventory.Server, b bmc) *remote {
	return &remote{server: s, dir: filepath.Join(p.Dir, s.Name), bmc: b, pace: usualPace, log: p.Log,
		offer: func(ctx context.Context, boot Boot) (nextBoot, error) { return p.offer(ctx, s, boot) },
		take:  func() error { return p.Offers.Withdraw(s.Name) }}
}

// offer lays down a life's files. Those that the release has not are not offered.
func (p Place) offer(ctx context.Context, s inventory.Server, boot Boot) (nextBoot, error) {
	who := []netip.Addr{s.Address.Addr()}
	if a, ok := s.Power.BMCAddress(); ok {
		who = append(who, a.Addr())
	}
	o, err := p.Offers.Put(ctx, offer.Offer{Server: s.Name, Epoch: boot.Epoch, Addresses: who, NotAfter: boot.NotAfter}, func(offer.Offer) []offer.File {
		files := []offer.File{
			{Name: offer.KernelFile, Write: boot.Kernel.copy},
			{Name: offer.InitrdFile, Write: func(w io.Writer) error { return initrd(w, boot) }},
			{Name: offer.ScriptFile, Write: func(w io.Writer) error {
				script, err := offer.Script(boot.Cmdline)
				if err == nil {
					_, err = io.WriteString(w, script)
				}
				return err
			}},
		}
		if boot.UKI.Path != "" {
			files = append(files, offer.File{Name: offer.MediumFile, Write: func(w io.Writer) error { return writeMedium(w, boot) }})
		}
		return files
	})
	if err != nil {
		return nextBoot{}, err
	}
	next := nextBoot{epoch: boot.Epoch, script: p.Base + o.Path(offer.ScriptFile)}
	if boot.UKI.Path != "" {
		next.medium = p.Base + o.Path(offer.MediumFile)
	}
	return next, nil
}
