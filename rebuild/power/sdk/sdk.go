// Package sdk is for who writes a site's own power driver as a plugin: a program whose main calls Serve with a function that does what
// it is asked (package site). mayfly starts it for one operation on one server and ends it after; it keeps what it has to in its own files.
//
// The protocol underneath is gRPC over a Unix socket, by go-plugin with mutual TLS, so that a plugin can be written in another language:
// service mayfly.power.v1.Power, method Do, a google.protobuf.BytesValue each way with JSON in it (docs/formats/power.md).
package sdk

import (
	"context"
	"encoding/json"
	"fmt"

	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"mayfly/rebuild/power/site"
)

// Specification constants, docs/formats/power.md.
const (
	Name    = "power"
	service = "mayfly.power.v1.Power"
	method  = "/" + service + "/Do"
)

// slack is what a message has around it.
const slack = 64

// Handshake is what plugin and host agree on. The cookie is no secret: it keeps a person from starting a plugin by hand.
var Handshake = goplugin.HandshakeConfig{ProtocolVersion: 1, MagicCookieKey: "MAYFLY_PLUGIN", MagicCookieValue: "mayfly-power-1"}

// Do does what it is asked.
type Do func(ctx context.Context, r site.Request) (site.Answer, error)

// Serve runs the plugin until its host ends it.
func Serve(do Do) {
	goplugin.Serve(&goplugin.ServeConfig{
		HandshakeConfig: Handshake,
		Plugins:         goplugin.PluginSet{Name: Power{Do: do}},
		GRPCServer: func(options []grpc.ServerOption) *grpc.Server {
			return grpc.NewServer(append(options, grpc.MaxRecvMsgSize(site.MaxMessage+slack))...)
		},
	})
}

// Power is the plugin for go-plugin, on both ends.
type Power struct {
	goplugin.NetRPCUnsupportedPlugin
	Do Do
}

var _ goplugin.GRPCPlugin = Power{}

// GRPCServer is the plugin's end.
func (p Power) GRPCServer(_ *goplugin.GRPCBroker, s *grpc.Server) error {
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: service, HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Do", Handler: p.handle}},
	}, p)
	return nil
}

func (p Power) handle(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	in := new(wrapperspb.BytesValue)
	if err := decode(in); err != nil {
		return nil, err
	}
	r, err := site.ParseRequest(in.GetValue())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	a, err := p.Do(ctx, r)
	if err != nil {
		a = site.Answer{Reason: "failed", Text: err.Error()}
	}
	a.Text = a.Text[:min(len(a.Text), site.MaxText)]
	out, err := json.Marshal(a)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return wrapperspb.Bytes(out), nil
}

// GRPCClient is the host's end.
func (Power) GRPCClient(_ context.Context, _ *goplugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	return Client{conn}, nil
}

// Client asks a plugin.
type Client struct{ conn *grpc.ClientConn }

// Ask returns the bytes of an answer, which the caller parses.
func (c Client) Ask(ctx context.Context, question []byte) ([]byte, error) {
	out := new(wrapperspb.BytesValue)
	if err := c.conn.Invoke(ctx, method, wrapperspb.Bytes(question), out, grpc.MaxCallRecvMsgSize(site.MaxMessage+slack)); err != nil {
		return nil, fmt.Errorf("asking: %w", err)
	}
	return out.GetValue(), nil
}
