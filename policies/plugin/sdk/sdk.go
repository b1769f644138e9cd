// Package sdk is for who writes a plugin: a program whose main calls Serve with a function that decides. The function is called for
// several questions at once. It can only deny; to say nothing against it is all that it can say in favour.
//
// The protocol underneath is gRPC over a Unix socket, by go-plugin with mutual TLS, so that a plugin can be written in another language:
// service mayfly.plugin.v1.Decider, method Decide, a google.protobuf.BytesValue each way with JSON in it (docs/formats/plugin.md).
package sdk

import (
	"context"
	"fmt"

	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"mayfly/internal/canonical"
	"mayfly/policies/plugin"
)

// Specification constants, docs/formats/plugin.md.
const (
	Name    = "decider"
	service = "mayfly.plugin.v1.Decider"
	method  = "/" + service + "/Decide"
)

// Handshake is what plugin and host agree on. The cookie is no secret: it keeps a person from starting a plugin by hand.
var Handshake = goplugin.HandshakeConfig{ProtocolVersion: 1, MagicCookieKey: "MAYFLY_PLUGIN", MagicCookieValue: "mayfly-decider-1"}

// Decide answers one request.
type Decide func(ctx context.Context, q plugin.Request) (plugin.Answer, error)

// Serve runs the plugin until its host ends it.
func Serve(decide Decide) {
	goplugin.Serve(&goplugin.ServeConfig{
		HandshakeConfig: Handshake,
		Plugins:         goplugin.PluginSet{Name: Decider{Decide: decide}},
		GRPCServer: func(options []grpc.ServerOption) *grpc.Server {
			return grpc.NewServer(append(options, grpc.MaxRecvMsgSize(plugin.MaxMessage+64))...)
		},
	})
}

// Decider is the plugin for go-plugin, on both ends.
type Decider struct {
	goplugin.NetRPCUnsupportedPlugin
	Decide Decide
}

var _ goplugin.GRPCPlugin = Decider{}

// GRPCServer is the plugin's end.
func (d Decider) GRPCServer(_ *goplugin.GRPCBroker, s *grpc.Server) error {
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: service, HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Decide", Handler: d.handle}},
	}, d)
	return nil
}

func (d Decider) handle(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	in := new(wrapperspb.BytesValue)
	if err := decode(in); err != nil {
		return nil, err
	}
	q, err := plugin.ParseRequest(in.GetValue())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	a, err := d.Decide(ctx, q)
	if err != nil {
		return nil, status.Error(codes.Unknown, err.Error())
	}
	if len(a.Text) > plugin.MaxText {
		a.Text = a.Text[:plugin.MaxText]
	}
	out, err := canonical.Marshal(a)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return wrapperspb.Bytes(out), nil
}

// GRPCClient is the host's end.
func (Decider) GRPCClient(_ context.Context, _ *goplugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	return Client{conn}, nil
}

// Client asks a plugin.
type Client struct{ conn *grpc.ClientConn }

// Decide asks, and reads the answer strictly.
func (c Client) Decide(ctx context.Context, q plugin.Request) (plugin.Answer, error) {
	in, err := canonical.Marshal(q)
	if err != nil {
		return plugin.Answer{}, err
	}
	out := new(wrapperspb.BytesValue)
	if err := c.conn.Invoke(ctx, method, wrapperspb.Bytes(in), out, grpc.MaxCallRecvMsgSize(plugin.MaxMessage+64)); err != nil {
		return plugin.Answer{}, fmt.Errorf("asking: %w", err)
	}
	return plugin.ParseAnswer(out.GetValue())
}
