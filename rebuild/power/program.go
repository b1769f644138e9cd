package power

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/user"
	"strconv"
	"syscall"

	"mayfly/internal/sealed"
	"mayfly/inventory"
	"mayfly/rebuild/power/site"
)

// program is a site's own driver, over whatever carries its questions.
type program struct {
	server   inventory.Server
	password func() (sealed.Secret, error)
	ration   *ration
	ask      func(ctx context.Context, question []byte) ([]byte, error)
}

var _ bmc = (*program)(nil)

func (p *program) done(context.Context) {}

// do asks one question. The answer's reason is the site's own word.
func (p *program) do(ctx context.Context, r site.Request) (site.Answer, error) {
	password, err := p.password()
	if err != nil {
		return site.Answer{}, err
	}
	if err := p.ration.take(ctx); err != nil {
		return site.Answer{}, err
	}
	r.Protocol, r.Server, r.Settings, r.Password = site.Protocol, p.server.Name, p.server.Power.Settings, password.Reveal()
	question, err := json.Marshal(r)
	if err != nil {
		return site.Answer{}, err
	}
	answer, err := p.ask(ctx, append(question, '\n'))
	if err != nil {
		return site.Answer{}, hide(err, password)
	}
	a, err := site.ParseAnswer(answer)
	if err != nil {
		return site.Answer{}, failf(Malformed, "%s: %s", r.Do, printable(password.Hide(err.Error())))
	}
	switch text := printable(password.Hide(a.Text)); a.Reason {
	case "":
		return a, nil
	case "busy":
		return a, failf(Busy, "%s: %s", r.Do, text)
	default:
		return a, failf(Refused, "%s: %s: %s", r.Do, printable(password.Hide(a.Reason)), text)
	}
}

// hide takes the password out of what a program's end was said to be.
func hide(err error, password sealed.Secret) error {
	f := (*Failure)(nil)
	if !errors.As(err, &f) {
		return err
	}
	return failf(f.Reason, "%s", printable(password.Hide(f.Err.Error())))
}

func (p *program) state(ctx context.Context) (powerState, error) {
	a, err := p.do(ctx, site.Request{Do: site.DoStatus})
	switch a.Power {
	case site.On:
		return stateOn, err
	case site.Off:
		return stateOff, err
	case site.Changing:
		return stateChanging, err
	}
	return stateUnknown, err
}

func (p *program) switchTo(ctx context.Context, on bool) error {
	do := site.DoOff
	if on {
		do = site.DoOn
	}
	_, err := p.do(ctx, site.Request{Do: do})
	return err
}

func (p *program) setBoot(ctx context.Context, next nextBoot) error {
	a, err := p.do(ctx, site.Request{Do: site.DoBoot, Epoch: next.epoch, Medium: next.medium, Script: next.script})
	if err != nil {
		return err
	}
	if a.Boot != "" && a.Boot != next.medium && a.Boot != next.script {
		return failf(BootNotApplied, "it took the boot, and reads back another")
	}
	return nil
}

func (p *program) console(ctx context.Context) ([]byte, error) {
	a, err := p.do(ctx, site.Request{Do: site.DoConsole})
	if err == nil && a.Console == "" {
		err = ErrNoConsole
	}
	return []byte(a.Console), err
}

func (p *program) joined(ctx context.Context) error {
	_, err := p.do(ctx, site.Request{Do: site.DoJoined})
	return err
}

// runAs is the user that a site's program runs as: nil for this one. Root never runs one as itself.
func runAs(name string) (*syscall.Credential, error) {
	own := os.Geteuid()
	if name == "" {
		if own == 0 {
			return nil, failf(ProgramRefused, "power.run_as has to name a user: a site's program does not run as root")
		}
		return nil, nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return nil, failf(ProgramRefused, "%w", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	gid, gerr := strconv.ParseUint(u.Gid, 10, 32)
	switch {
	case err != nil || gerr != nil:
		return nil, failf(ProgramRefused, "user %s: %w", name, errors.Join(err, gerr))
	case uid == 0:
		return nil, failf(ProgramRefused, "power.run_as is root: a site's program does not run as root")
	case int(uid) == own:
		return nil, nil
	case own != 0:
		return nil, failf(ProgramRefused, "power.run_as is %s, and only root can run programs as another user", name)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// owners are whose a program's file and folders may be: root, and whoever this is.
func owners() []uint32 { return []uint32{0, uint32(os.Geteuid())} }
