package host

import (
	"net"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"mayfly/policies/plugin"
	"mayfly/policies/plugin/sdk"
)

// TestLateAtTheOtherEnd: the deadline may be seen there first; that is late as well, and no reason to start the plugin anew. Another error is.
func TestLateAtTheOtherEnd(t *testing.T) {
	for code, want := range map[codes.Code]string{codes.DeadlineExceeded: plugin.Late, codes.Internal: plugin.Failed} {
		path := filepath.Join(t.TempDir(), "s")
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		server := grpc.NewServer(grpc.UnknownServiceHandler(func(any, grpc.ServerStream) error { return status.Error(code, "no") }))
		defer server.Stop()
		go server.Serve(l)
		conn, err := grpc.NewClient("unix:"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		client, err := sdk.Decider{}.GRPCClient(t.Context(), nil, conn)
		if err != nil {
			t.Fatal(err)
		}
		ended := false
		one := &process{}
		one.life.Store(&life{client.(sdk.Client), func() { ended = true }})
		v := one.decide(t.Context(), plugin.Pin{Name: "site", Deadline: time.Minute}, plugin.Request{Kind: "login"})
		if v.Outcome != want || ended != (want == plugin.Failed) {
			t.Errorf("%s: got %+v, ended %v, want %s", code, v, ended, want)
		}
	}
}
