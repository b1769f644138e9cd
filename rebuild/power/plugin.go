package power

import (
	"context"
	"errors"
	"os"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"mayfly/inventory"
	"mayfly/policies/plugin"
	"mayfly/policies/plugin/host"
	"mayfly/rebuild/power/sdk"
)

// pluginDriver returns how a question is put to a plugin: it is started for it, and ended after.
func pluginDriver(p inventory.Power, dir string) func(context.Context, []byte) ([]byte, error) {
	return func(ctx context.Context, question []byte) (answer []byte, err error) {
		as, err := runAs(p.RunAs)
		if err != nil {
			return nil, err
		}
		pin := plugin.Pin{Name: p.Program, SHA256: p.SHA256}
		file, err := host.Load(dir, pin, owners())
		if err != nil {
			return nil, &Failure{ProgramRefused, err}
		}
		defer func() { err = errors.Join(err, file.Close()) }()
		sockets, err := os.MkdirTemp("", "mayfly-power-") // mode 0700
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(sockets)) }()
		if as != nil {
			if err := os.Chown(sockets, int(as.Uid), int(as.Gid)); err != nil {
				return nil, err
			}
		}
		started, err := host.Start(file, host.Kind{Handshake: sdk.Handshake, Name: sdk.Name, Plugin: sdk.Power{}}, p.Program, sockets, as)
		defer func() { err = errors.Join(err, started.End()) }()
		if err != nil {
			return nil, &Failure{ProgramFailed, err}
		}
		client, ok := started.Client.(sdk.Client)
		if !ok {
			return nil, errors.New("internal error: another kind of client")
		}
		ctx, cancel := context.WithTimeout(ctx, programLimit)
		defer cancel()
		answer, err = client.Ask(ctx, question)
		switch {
		case err == nil:
			return answer, nil
		case ctx.Err() != nil || status.Code(err) == codes.DeadlineExceeded:
			return nil, failf(ProgramLate, "it has not answered in time")
		case status.Code(err) == codes.ResourceExhausted:
			return nil, &Failure{Oversize, err}
		}
		return nil, &Failure{ProgramFailed, err}
	}
}
